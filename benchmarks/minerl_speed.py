"""What the ``minerl`` world's worker and socket cost: env steps a second at 64 x 64, a step of 4 ticks. Prints JSON.

Three engines behind the same worker and socket:

* ``still``: an engine that shows the same picture for nothing, so what is left is worker, socket and checks;
* ``minerl``: MineRL's real Python half over its real socket, against a Malmo server of this file that shows the same picture for nothing
  (needs ``make test-minerl``, which installs it; left out otherwise);
* ``voxel``: the same against the embedded world, which draws four pictures a step in a process of its own.

Run as ``python benchmarks/minerl_speed.py``; a busy neighbour makes it slower, so ``load`` says how busy the machine was. ``MineRLWorld``
starts this file itself as its worker for ``still`` (with the port as the only argument).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
BLOCK = 100
"""Steps between two looks at the clock; numbers are medians over blocks."""


def rate(world: Any, seconds: float) -> dict[str, float]:
    """Steps a second of a world: median and best over blocks of steps, for about so many seconds."""
    world.reset(0)
    action = np.array([1, 0, 0, 0, 0, 0, 0, 0, 22.5], np.float32)
    for _ in range(BLOCK):
        world.step(action)
    rates = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before = time.perf_counter()
        for _ in range(BLOCK):
            world.step(action)
        rates.append(BLOCK / (time.perf_counter() - before))
    world.close()
    return {"median": round(statistics.median(rates), 1), "best": round(max(rates), 1), "steps": BLOCK * len(rates)}


def serve(what: str) -> subprocess.Popen[str]:
    """A Malmo server in a process of its own; its first line is its port."""
    process = subprocess.Popen([sys.executable, __file__, "--serve", what], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process


def run_server(what: str) -> None:
    from worldpack_env.worlds import malmo_server

    if what == "still":

        class StillPlayer(malmo_server.Player):
            """Answers every tick with the first one's bytes."""

            def __init__(self, mission: malmo_server.Mission) -> None:
                super().__init__(mission)
                self.first = super().picture, super().info

            def tick(self, commands: str) -> None:
                pass

            picture = property(lambda self: self.first[0])  # type: ignore[assignment]
            info = property(lambda self: self.first[1])  # type: ignore[assignment]

        malmo_server.Player = StillPlayer  # type: ignore[misc]
    server = malmo_server.MalmoServer()
    print(server.port, flush=True)
    server.wait()


def run_worker() -> None:
    """The worker over an engine that costs nothing."""
    sys.path.insert(0, str(ROOT / "worldpack_env" / "worlds"))
    import minerl_worker as worker

    class StillEngine:
        def __init__(self, backend: str, size: tuple[int, int], ticks: int, server: int | None, mission: str | None) -> None:
            self.frame, self.ticks = worker.Frame(np.full((*size, 3), 99, np.uint8), [0.5, 64.0, 0.5, 0.0, 0.0]), ticks

        def about(self) -> dict[str, str]:
            return {"backend": "still"}

        def reset(self, seed: int, pose: Any) -> Any:
            return self.frame

        def step(self, keys: Any, camera: Any) -> Any:
            return [self.frame] * self.ticks, self.frame.pixels

        def told(self) -> None:
            return None

        def close(self) -> None:
            pass

    worker.main(StillEngine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to measure each")
    parser.add_argument("--serve", choices=("still", "voxel"), help="be one of the Malmo servers that this starts itself")
    options = parser.parse_args()
    if options.serve:
        run_server(options.serve)
        return
    from worldpack_env.worlds.minerl import MineRLWorld
    from worldpack_env.worlds.voxel import VoxelWorld
    from worldpack_model.provenance import provenance

    found: dict[str, Any] = {"still": rate(MineRLWorld(python=sys.executable, worker=__file__), options.seconds)}
    python = ROOT / ".venv-minerl" / "bin" / "python"
    about: dict[str, str] = {}
    if python.exists():
        for name, what in (("minerl", "still"), ("voxel", "voxel")):
            server = serve(what)
            try:
                assert server.stdout is not None
                world = MineRLWorld(python=python, backend="minerl-0.4", server=int(server.stdout.readline()))
                found[name] = rate(world, options.seconds)
                about = world.about
            finally:
                server.kill()
                server.wait()
    found["voxel_direct"] = rate(VoxelWorld(), options.seconds)
    report = {
        "env_steps_per_second_64x64": found,
        "ticks_per_step": 4,
        "minerl": about or "not installed",
        "load": round(os.getloadavg()[0], 2),
        "provenance": provenance(),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].isdigit():
        run_worker()
    else:
        main()
