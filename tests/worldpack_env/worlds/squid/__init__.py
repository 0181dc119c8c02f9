"""A Minecraft server for tests: flying-squid on a free port of this machine."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
import time
from pathlib import Path

import pytest

from worldpack_env.worlds import BackendUnavailable, node_packages

MODULES = Path(__file__).parents[4] / ".squid" / "node_modules"
"""Where ``make test-minecraft`` puts it."""
SCRIPT = Path(__file__).with_name("squid.js")


class Squid:
    """A running server; see ``squid.js``."""

    def __init__(self, boxes: list[list[object]], **options: object) -> None:
        node = node_packages.node_program()
        if node is None or not (MODULES / "flying-squid").is_dir():
            pytest.skip(f"there is no flying-squid in {MODULES}, a server to test with; `make test-minecraft-server` gets it")
        try:
            node_packages.command("client.js")
        except BackendUnavailable as error:
            pytest.skip(str(error))
        self.process = subprocess.Popen(
            [node, str(SCRIPT), json.dumps({"boxes": boxes, **options})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "NODE_PATH": str(MODULES)},
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.port = int(self._told("port"))
        self.address = f"127.0.0.1:{self.port}"
        self.world = f"minecraft@{self.address}"

    def order(self, text: str) -> None:
        """Has something done, and waits until it was."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        self._told("done")

    def _told(self, word: str) -> str:
        """What follows a word at the beginning of a line."""
        end = time.monotonic() + 60
        while (left := end - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                break
            if line is None:
                raise RuntimeError(f"flying-squid ended with status {self.process.wait(10)}")
            if line.startswith(f"{word} "):
                return line.split(maxsplit=1)[1].strip()
        raise RuntimeError(f"flying-squid did not say {word!r} within 60 s")

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def close(self) -> None:
        """Ends it; may be called twice."""
        self.process.kill()
        self.process.wait(10)
        self._listener.join(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
