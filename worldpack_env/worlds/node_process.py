"""A Node process that answers requests over a pair of pipes, one at a time, each within its time-out.

A message is ``WPMC``, the request's number, bytes of JSON, bytes of payload and the CRC-32 of both (uint32, little-endian), then JSON and payload;
``node/wire.js`` is the other side. Whatever else comes (a stray print, half a message, silence, the end) is an error, never an answer: the process
is then killed with its group and waited for, and its owner starts another one.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import struct
import subprocess
import tempfile
import time
import weakref
import zlib
from collections.abc import Mapping, Sequence
from typing import IO, Any, Final

from worldpack_env.worlds import BackendUnavailable, EpisodeLost

MAGIC: Final = b"WPMC"
LIMIT: Final = 64 * 2**20
"""Most bytes of one message."""
_NUMBERS: Final = struct.Struct("<IIII")
_TAIL: Final = 400
_LONGEST_WAIT: Final = 0.5


class NodeProcess:
    """One process. It belongs to the process that made it, and is ended with it."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str] | None = None, timeout: float = 30.0) -> None:
        """Starts the process.

        Args:
            command: program and arguments.
            environment: environment variables beside this process's own.
            timeout: seconds that one request may take.

        Raises:
            BackendUnavailable: if the program cannot be started.
        """
        self.timeout = timeout
        self._owner = os.getpid()
        self._number = 0
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        try:
            # A session of its own: Ctrl-C in a terminal is ours to handle, and the whole group can be killed.
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            self._errors.close()
            raise BackendUnavailable(f"{command[0]} cannot be started ({error}); run `worldpack doctor minecraft`.") from None
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        self._end = weakref.finalize(self, _end, self._process, self._errors, self._owner)

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """True until the process ended or was closed."""
        return self._end.alive and self._process.poll() is None

    def request(self, header: Mapping[str, Any], payload: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Sends a request and waits for its answer.

        Args:
            header: what JSON can say.
            payload: the rest.

        Returns:
            JSON and payload of the answer.

        Raises:
            EpisodeLost: if the process ended, was silent for too long or said something else; it is closed then.
            BackendUnavailable: if the process reports an error.
        """
        if os.getpid() != self._owner:
            raise BackendUnavailable("The minecraft world was made in another process; make one in each process that uses it.")
        if not self._end.alive:
            raise EpisodeLost("The Node process of the minecraft world has ended; reset() starts a new one.")
        deadline = time.monotonic() + self.timeout
        self._number = (self._number + 1) % 2**32
        what = str(header.get("op", "request"))
        try:
            text = json.dumps(header).encode()
            numbers = _NUMBERS.pack(self._number, len(text), len(payload), zlib.crc32(payload, zlib.crc32(text)))
            self._write(b"".join((MAGIC, numbers, text, payload)), deadline)
            answer, rest = self._receive(deadline)
        except _Broken as trouble:
            message = f"The Node process of the minecraft world {trouble} (asked for {what!r}){self._last_words()}; reset() starts a new one."
            self.close()
            raise EpisodeLost(message) from None
        except BaseException:
            self.close()  # interrupted in the middle: what comes next on the pipe is of no use
            raise
        if "error" in answer:
            raise BackendUnavailable(f"The Node process of the minecraft world could not do {what!r}: {answer['error']}.")
        return answer, rest

    def close(self) -> None:
        """Kills the process with its group and waits for it; may be called twice."""
        self._end()

    def _receive(self, deadline: float) -> tuple[dict[str, Any], bytes]:
        magic = bytes(self._read(len(MAGIC), deadline))
        if magic != MAGIC:  # told at once, however little was written
            raise _Broken(f"wrote {magic!r} where an answer begins with {MAGIC!r}")
        number, text_bytes, payload_bytes, checksum = _NUMBERS.unpack(self._read(_NUMBERS.size, deadline))
        if text_bytes + payload_bytes > LIMIT:
            raise _Broken(f"announced an answer of {text_bytes + payload_bytes} bytes, at most {LIMIT} were expected")
        body = self._read(text_bytes + payload_bytes, deadline)
        if zlib.crc32(body) != checksum:
            raise _Broken("sent an answer with a wrong checksum")
        if number != self._number:
            raise _Broken(f"answered request {number}, expected {self._number}")
        try:
            answer = json.loads(body[:text_bytes])
        except ValueError:
            raise _Broken("sent an answer that is no JSON") from None
        if not isinstance(answer, dict):
            raise _Broken("sent an answer that is no JSON object")
        return answer, bytes(body[text_bytes:])

    def _read(self, size: int, deadline: float) -> bytearray:
        """Exactly ``size`` bytes."""
        data = bytearray()
        while len(data) < size:
            self._wait(self._from, reading=True, deadline=deadline)
            try:
                part = os.read(self._from, size - len(data))
            except BlockingIOError:
                continue
            if not part:
                raise _Broken(self._ended())
            data += part
        return data

    def _write(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(self._to, reading=False, deadline=deadline)
            try:
                view = view[os.write(self._to, view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise _Broken(self._ended()) from None

    def _wait(self, pipe: int, *, reading: bool, deadline: float) -> None:
        """Returns once the pipe can be used; looks now and then whether the process still lives."""
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise _Broken(f"did not answer within {self.timeout:g} s")
            poll = select.poll()  # select.select() fails on file numbers above 1023
            poll.register(pipe, select.POLLIN if reading else select.POLLOUT)
            if poll.poll(1000 * min(left, _LONGEST_WAIT)):
                return
            if self._process.poll() is not None:
                raise _Broken(self._ended())

    def _ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        code = self._process.returncode
        return "closed its pipe" if code is None else f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"

    def _last_words(self) -> str:
        """What it last wrote to its standard error, for the message."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _TAIL))
        words = self._errors.read().decode(errors="replace").strip()
        return f", its last words: {words!r}" if words else ""


class _Broken(Exception):
    """The conversation cannot go on; the text continues "The Node process ..."."""


def _end(process: subprocess.Popen[bytes], errors: IO[bytes], owner: int) -> None:
    """Ends a process and waits for it, so that no zombie stays; in a forked copy of its owner only the pipes are closed."""
    if os.getpid() == owner:
        if process.returncode is None:  # not waited for yet, so its number is still its own
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout, errors):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
