"""The pipe to a Node process, with peers that misbehave: whatever comes, it is an answer or one clear error in time, and no process stays."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from worldpack_env.worlds import BackendUnavailable
from worldpack_env.worlds.node_process import NodeProcess

PEER = """
import json, os, struct, sys, time, zlib
HEAD = struct.Struct("<4sIIII")
def ask():
    head = sys.stdin.buffer.read(20)
    if len(head) < 20:
        sys.exit(0)
    magic, number, n, m, crc = HEAD.unpack(head)
    body = sys.stdin.buffer.read(n + m)
    assert magic == b"WPMC" and zlib.crc32(body) == crc
    return number, json.loads(body[:n]), body[n:]
def pack(number, header, payload=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return HEAD.pack(b"WPMC", number, len(text), len(payload), zlib.crc32(text + payload)) + text + payload
def put(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
"""
ECHO = "while True:\n    number, header, payload = ask()\n    put(pack(number, header, payload))\n"


def peer(script: str, timeout: float = 5.0) -> NodeProcess:
    return NodeProcess([sys.executable, "-c", PEER + script], timeout=timeout)


def gone(pid: int) -> bool:
    """True if there is no such process, not even a zombie."""
    return not Path(f"/proc/{pid}").exists()


def test_requests_and_answers_of_every_size() -> None:
    process = peer(ECHO, timeout=20.0)
    for size in (0, 1, 65536, 3_000_001):
        header, payload = process.request({"op": "echo", "size": size}, os.urandom(size))
        assert header == {"op": "echo", "size": size}
        assert len(payload) == size
    process.close()
    process.close()
    assert gone(process.pid)
    with pytest.raises(BackendUnavailable, match="has ended"):
        process.request({"op": "echo"})


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("ask(); put(b'Debugger listening on ws://127.0.0.1:9229')", "wrote b'Debu'"),
        ("number, header, _ = ask(); put(b'hello\\n' + pack(number, header))", "wrote b'hell'"),
        ("number, header, _ = ask(); put(pack(number, header, b'x' * 100)[:70])", "ended with status 0"),
        ("number, header, _ = ask(); put(pack(number, header)[:7])", "ended with status 0"),
        ("number, header, _ = ask(); a = bytearray(pack(number, header, b'x' * 100)); a[60] ^= 1; put(bytes(a))", "wrong checksum"),
        ("number, header, _ = ask(); put(pack(number + 1, header))", "answered request 2, expected 1"),
        ("number, header, _ = ask(); put(HEAD.pack(b'WPMC', number, 2**31, 2**31, 0))", "announced an answer of 4294967296 bytes"),
        ("number, header, _ = ask(); put(pack(number, b'{not json'))", "no JSON"),
        ("number, header, _ = ask(); put(pack(number, [1, 2]))", "no JSON object"),
        ("ask(); sys.stderr.write('out of memory'); sys.exit(3)", "ended with status 3 .*last words: 'out of memory'"),
        ("ask(); os.kill(os.getpid(), 11)", "was killed by signal 11"),
        ("sys.exit(7)", "ended with status 7"),
    ],
)
def test_anything_but_an_answer_is_one_clear_error(script: str, words: str) -> None:
    process = peer(script)
    with pytest.raises(BackendUnavailable, match=words):
        process.request({"op": "step"}, b"x" * 100)
    assert not process.alive
    assert gone(process.pid)


@pytest.mark.parametrize(
    "script",
    [
        "ask(); time.sleep(60)",
        "number, header, _ = ask(); put(pack(number, header, b'x' * 1000)[:500]); time.sleep(60)",
        "ask()\nwhile True:\n    put(b'WPMC')\n    time.sleep(0.1)",
        "time.sleep(60)",  # does not even read
    ],
)
def test_silence_ends_at_the_time_out(script: str) -> None:
    process = peer(script, timeout=1.0)
    began = time.monotonic()
    with pytest.raises(BackendUnavailable, match=r"did not answer within 1 s|wrote b|announced"):
        process.request({"op": "step"}, b"x" * 1_000_000)
    assert time.monotonic() - began < 3.0
    assert gone(process.pid)


def test_what_the_process_started_ends_with_it(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    script = f"import subprocess\nchild = subprocess.Popen(['sleep', '60'])\nopen({str(told)!r}, 'w').write(str(child.pid))\n{ECHO}"
    process = peer(script)
    process.request({"op": "echo"})
    process.close()
    deadline = time.monotonic() + 5.0
    child = Path(f"/proc/{told.read_text()}/stat")  # its new parent may not have collected it yet
    while child.exists() and ") Z " not in child.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not child.exists() or ") Z " in child.read_text()


def test_an_error_that_the_process_reports_does_not_end_it() -> None:
    process = peer("number, _, _ = ask(); put(pack(number, {'error': 'no such block'}))\n" + ECHO)
    with pytest.raises(BackendUnavailable, match="could not do 'grid': no such block"):
        process.request({"op": "grid"})
    assert process.request({"op": "echo"})[0] == {"op": "echo"}
    process.close()


def test_a_process_that_nobody_holds_is_ended() -> None:
    process = peer(ECHO)
    pid = process.pid
    del process
    assert gone(pid)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(BackendUnavailable, match="worldpack doctor minecraft"):
        NodeProcess(["/nowhere/node", "server.js"])


def test_an_interrupted_request_ends_the_process() -> None:
    """What comes on the pipe after an interruption would be the answer to another question."""
    process = peer("ask(); time.sleep(60)", timeout=30.0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts tests in the background has it ignored

    def interrupt() -> None:
        time.sleep(0.3)
        os.kill(os.getpid(), 2)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            process.request({"op": "step"})
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert gone(process.pid)
