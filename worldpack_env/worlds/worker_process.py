"""A worker process and the socket to it: started, asked with time-outs, ended with all its children.

The other half and the form of the messages are in ``minerl_worker.py``. Every number that comes in is checked against what was asked for
before any of its bytes become a picture.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import signal
import socket
import struct
import subprocess
import tempfile
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

from worldpack_env.worlds import BackendUnavailable, EpisodeLost

MAGIC: Final = b"WPM1"
PREFIX: Final = struct.Struct("!4sII")
_HEADER_LIMIT: Final = 1 << 20
_LOG_LINES: Final = 6
_LOG_BYTES: Final = 4096


class WorkerFault(EpisodeLost):
    """The worker failed and is ended; starting it again may help."""


class WorkerRefusal(BackendUnavailable):
    """The worker says that it cannot work on this machine; starting it again cannot help."""


class WorkerProcess:
    """One running worker.

    Whatever goes wrong in :meth:`ask`, the process is ended before the error is raised (but for a refusal, which is a whole answer): after a
    fault nobody knows what the next bytes on the socket belong to.
    """

    def __init__(self, command: Sequence[str], *, connect_seconds: float, name: str = "MineRL") -> None:
        """Starts the process and waits until it has connected and shown the token.

        Args:
            command: program and arguments; the port to connect to is appended.
            connect_seconds: how long it may take to connect.
            name: what messages call it.

        Raises:
            WorkerRefusal: if the program cannot be started.
            WorkerFault: if it ends or does not connect in time.
        """
        self.name = name
        self._socket: socket.socket | None = None
        self._asked = 0
        token = secrets.token_hex(32)
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        with socket.create_server(("127.0.0.1", 0), backlog=4) as listener:
            # Paths of modules for this Python are wrong for another one.
            environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
            try:
                # A process group of its own: Ctrl-C is for us, and what it started can be ended with it.
                self._process = subprocess.Popen(
                    [*command, str(listener.getsockname()[1])],
                    stdin=subprocess.PIPE,
                    stdout=self._log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=environment,
                )
            except OSError as error:
                self._log.close()
                raise WorkerRefusal(f"The {name} worker cannot be started with {command[0]}: {error.strerror or error}.") from None
            # Also where nobody closes it: at the end of Python, or when it is no longer referred to.
            self._end = weakref.finalize(self, _end_family, self._process)
            try:
                assert self._process.stdin is not None
                with contextlib.suppress(OSError), self._process.stdin as stdin:  # it may have ended already
                    stdin.write(f"{token}\n".encode())
                self._socket = self._accept(listener, token, time.monotonic() + connect_seconds, connect_seconds)
            except BaseException:
                self.kill()
                raise

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    def _accept(self, listener: socket.socket, token: str, deadline: float, seconds: float) -> socket.socket:
        """The worker's connection; others that connect without the token are turned away."""
        listener.settimeout(0.1)
        while time.monotonic() < deadline:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                if (ended := _ended(self._process)) is not None:
                    raise self._fault(f"ended with status {ended} before it connected") from None
                continue
            connection.settimeout(max(0.01, min(5.0, deadline - time.monotonic())))
            shown = bytearray()
            with contextlib.suppress(OSError):
                while len(shown) < len(token) and (part := connection.recv(len(token) - len(shown))):
                    shown += part
            if hmac.compare_digest(bytes(shown), token.encode()):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connection
            connection.close()
        raise self._fault(f"did not connect within {seconds:g} s")

    def ask(self, do: str, payload: memoryview | int | None, seconds: float, **fields: Any) -> tuple[dict[str, Any], bytes]:
        """Sends one request and waits for its answer.

        Args:
            do: what to do.
            payload: buffer for the answer's payload, which must be of exactly its size; a number takes any payload up to so many bytes,
                which are returned; None expects none.
            seconds: how long the answer may take, all in all.
            **fields: the rest of the request; JSON.

        Returns:
            Header of the answer, and its payload where ``payload`` is a number.

        Raises:
            WorkerRefusal: if the worker says that it cannot, and that asking again cannot help.
            WorkerFault: on anything else that is not the answer asked for; the process has been ended.
        """
        self._asked += 1
        deadline = time.monotonic() + seconds
        try:
            return self._ask({"id": self._asked, "do": do, **fields}, payload, deadline)
        except WorkerRefusal:  # a whole answer, so the socket can still be trusted
            raise
        except TimeoutError:
            what = f"did not answer {do!r} within {seconds:g} s"
        except (ConnectionError, EOFError):
            ended = _ended(self._process, 2.0)
            what = f"broke the connection during {do!r}" + (f" and ended with status {ended}" if ended is not None else "")
        except BaseException:  # a fault, or Ctrl-C in the middle of an answer
            self.kill()
            raise
        fault = self._fault(what)  # while there is a log to quote
        self.kill()
        raise fault

    def _ask(self, request: dict[str, Any], payload: memoryview | int | None, deadline: float) -> tuple[dict[str, Any], bytes]:
        do = request["do"]
        if self._socket is None:
            raise self._fault(f"is not running, so it cannot be asked for {do!r}")
        text = json.dumps(request, allow_nan=False).encode()
        self._socket.settimeout(_left(deadline))
        self._socket.sendall(PREFIX.pack(MAGIC, len(text), 0) + text)
        prefix = bytearray(PREFIX.size)
        self._read(memoryview(prefix), deadline)
        magic, length, count = PREFIX.unpack(prefix)
        if magic != MAGIC or length > _HEADER_LIMIT:
            raise self._fault(f"answered {do!r} with bytes that are no message: {bytes(prefix)!r}")
        raw = bytearray(length)
        self._read(memoryview(raw), deadline)
        try:
            header = json.loads(raw)
        except ValueError:
            header = None
        if not isinstance(header, dict):
            raise self._fault(f"answered {do!r} with a header that is no JSON object: {bytes(raw[:80])!r}")
        if header.get("id") != request["id"]:
            raise self._fault(f"answered request {header.get('id')!r} where {request['id']} ({do!r}) was asked")
        if header.get("ok") is not True:
            told = str(header.get("error", "no reason given"))
            if header.get("final") is True:
                raise WorkerRefusal(told)
            raise self._fault(f"reports for {do!r}: {told}")
        if isinstance(payload, int):
            if count > payload:
                raise self._fault(f"answered {do!r} with {count} bytes of data, expected at most {payload}")
            buffer = bytearray(count)
            self._read(memoryview(buffer), deadline)
            return header, bytes(buffer)
        expected = 0 if payload is None else payload.nbytes
        if count != expected:
            raise self._fault(f"answered {do!r} with {count} bytes of data, expected {expected}")
        if payload is not None:
            self._read(payload, deadline)
        return header, b""

    def _read(self, buffer: memoryview, deadline: float) -> None:
        """Fills ``buffer`` from the socket."""
        assert self._socket is not None
        done = 0
        while done < len(buffer):
            self._socket.settimeout(_left(deadline))
            count = self._socket.recv_into(buffer[done:])
            if count == 0:
                raise EOFError
            done += count

    def _fault(self, what: str) -> WorkerFault:
        """The error for something the worker did, with the last lines of its log."""
        log = self.log_tail()
        return WorkerFault(f"The {self.name} worker {what}." + (f" Its last words: {log}" if log else ""))

    def log_tail(self) -> str:
        """The last lines that the worker and its engine printed, in one line."""
        if self._log.closed:
            return ""
        size = os.fstat(self._log.fileno()).st_size
        # Not seek and read: the position is shared with the process that writes.
        tail = os.pread(self._log.fileno(), _LOG_BYTES, max(0, size - _LOG_BYTES)).decode(errors="replace")
        return " | ".join([line.strip() for line in tail.splitlines() if line.strip()][-_LOG_LINES:])

    def close(self, seconds: float) -> None:
        """Asks the worker to end its engine and itself, and ends both where that takes too long; may be called twice."""
        if self._socket is not None:
            with contextlib.suppress(BackendUnavailable):
                self.ask("close", None, seconds)
            _ended(self._process, 2.0)
        self.kill()

    def kill(self) -> None:
        """Ends the worker and everything it started, at once, and waits for it; may be called twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._end()
        self._log.close()


def _ended(process: subprocess.Popen[bytes], seconds: float = 0.0) -> int | None:
    """The status of a process that ends within ``seconds``, None of one that does not.

    It is not reaped: its number, which is that of the group of what it started as well, stays its own until :func:`_end_family`.
    """
    until = time.monotonic() + seconds
    while True:
        if process.returncode is not None:
            return process.returncode
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            status = process.poll()
        else:
            try:
                told = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:  # somebody else in this program reaped it
                return process.poll()
            status = None if told is None else told.si_status if told.si_code == os.CLD_EXITED else -told.si_status
        if status is not None or time.monotonic() > until:
            return status
        time.sleep(0.01)


def _end_family(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and everything it started, and waits for it; of one that has ended already, what is left of its group."""
    if process.returncode is not None:
        return
    # MineRL starts Minecraft in a session of its own, so the group alone would leave it behind.
    family = descendants(process.pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for pid in family:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _left(deadline: float) -> float:
    """Seconds until ``deadline``.

    Raises:
        TimeoutError: if it is over.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def descendants(pid: int) -> list[int]:
    """Process ids of the children of a process, their children, and so on; only where ``/proc`` tells (Linux)."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The second field is the program's name in brackets and may hold anything.
            parent = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue  # it ended meanwhile
        children.setdefault(parent, []).append(int(path.parent.name))
    found, queue = [], [pid]
    while queue:
        for child in children.get(queue.pop(), []):
            found.append(child)
            queue.append(child)
    return found
