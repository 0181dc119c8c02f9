"""A worker that speaks the real one's protocol over an engine without a world, and breaks it in the way that FAULT names.

Run as the worker by tests of ``MineRLWorld``; nothing of MineRL is needed.
"""

import importlib.util
import os
import sys
import time
from pathlib import Path

import numpy as np

WORKER = Path(__file__).parents[3] / "worldpack_env" / "worlds" / "minerl_worker.py"
spec = importlib.util.spec_from_file_location("minerl_worker", WORKER)
worker = importlib.util.module_from_spec(spec)
sys.modules["minerl_worker"] = worker
spec.loader.exec_module(worker)

FAULT, _, WHERE = os.environ.get("FAULT", "none@none").partition("@")
MARK = os.environ.get("FAULT_ONCE")
"""A file: the fault happens only while it is not there, and makes it."""


class LineEngine:
    """Walks along z by a tenth of a block a tick while forward is held; the picture shows the tick."""

    def __init__(self, backend, size, ticks, server, mission):
        self.mission, self.left = mission, 3 * ticks - 2
        self.size, self.ticks, self.pose, self.tick = size, ticks, [0.0] * 5, 0
        if FAULT == "refuses":
            raise worker.SetupError("There is no engine here; install one.")

    def about(self):
        return {"backend": "line"}

    def frame(self):
        return worker.Frame(np.full((*self.size, 3), self.tick % 256, np.uint8), list(self.pose))

    def reset(self, seed, pose):
        self.pose, self.tick = list(pose or [0.5, 4.0, 0.5, 0.0, 0.0]), 0
        return self.frame()

    def step(self, keys, camera):
        frames = []
        for _ in range(self.ticks):
            self.tick += 1
            self.pose[2] += 0.1 * keys[0]
            frames.append(self.frame())
            if self.mission and self.tick == self.left:
                break
        if FAULT == "sinks":
            self.pose[1] -= 1.0
        self.pose[3] += camera[1]
        frames[-1].pose[:] = self.pose
        if FAULT == "nan":
            frames[-1].pose[0] = None
        if FAULT == "raises" and WHERE == "step":
            raise worker.EngineError("MineRL lost its engine: Connection timed out!")
        return frames, frames[-1].pixels

    def told(self):
        """The mission ends in the second tick of the third step; each block along z pays 1."""
        if self.mission is None:
            return None
        told = [0.25, self.tick >= self.left, self.tick >= self.left, 190.0, None]
        return {"short": told[:3], "nan-compass": [*told[:3], None, None], "won-early": [0.0, False, True, 0.0, 1.0]}.get(FAULT, told)

    def survey(self, seed, corner, size, below, above):
        full = (size[0], below + above, size[1])
        ids = np.zeros(full[0] * full[1] * full[2], np.uint16)
        ids[: full[0] * full[2] * 10] = 1
        return {"palette": ["air", "grass"], "corner": (corner[0], 55, corner[1]), "size": full}, ids

    def close(self):
        pass


true_answer, true_send = worker.answer, worker.send


def answer(engine, request):
    here = request["do"] == WHERE and not (MARK and os.path.exists(MARK))
    if here and MARK:
        Path(MARK).touch()
    if here and FAULT == "delays":
        time.sleep(30)
    if here and FAULT == "dies":
        print("java.lang.OutOfMemoryError: not enough for a world", flush=True)
        os._exit(7)
    header, payload = true_answer(engine, request)
    header["fault"] = here
    return header, payload


def send(sock, header, payload=b""):
    if not header.pop("fault", False):
        true_send(sock, header, payload)
    elif FAULT == "half":
        text = worker.json.dumps(header).encode()
        sock.sendall(worker.PREFIX.pack(worker.MAGIC, len(text), len(payload)) + text + payload[: len(payload) // 2])
        time.sleep(30)
    elif FAULT == "garbage":
        sock.sendall(os.urandom(4096))
        time.sleep(30)
    elif FAULT == "no-json":
        sock.sendall(worker.PREFIX.pack(worker.MAGIC, 5, 0) + b"[1,2]")
    elif FAULT == "size":
        true_send(sock, header, payload[:-3])
    elif FAULT == "large":
        true_send(sock, header, payload + b"123")
    elif FAULT == "stale":
        true_send(sock, {**header, "id": header["id"] - 1}, payload)
    elif FAULT == "poseless":
        true_send(sock, {"id": header["id"], "ok": True}, payload)
    else:
        true_send(sock, header, payload)


worker.answer, worker.send = answer, send
if FAULT == "never-connects":
    time.sleep(60)
if FAULT == "ends-at-once":
    sys.exit("no module named anything")
worker.main(LineEngine)
