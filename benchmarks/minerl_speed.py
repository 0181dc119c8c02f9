"""How fast the ``minerl`` world goes through worker and socket at 64 x 64. Prints JSON.

Two units: a MineRL step is one game tick and has a picture; an env step of this project is 4 of them. ``per_processor_second`` counts MineRL steps by
the processor time that this program, the worker and the server took together (Linux), which a busy neighbour disturbs less than the clock.

Three engines behind the same worker and socket:

* ``still``: an engine that shows the same picture for nothing, so what is left is worker, socket and checks;
* ``minerl``: MineRL's real Python half over its real socket, against a Malmo server of this file that shows the same picture for nothing
  (needs ``make test-minerl``, which installs it; left out otherwise);
* ``voxel``: the same against the embedded world, which draws a picture for every tick in a process of its own.

``voxel_batch`` is ``voxel`` as a batched environment has it: ``--engines`` of them with a server each, stepped at the same time, on all cores; env
steps of all of them together. ``voxel_direct`` is the embedded world without any of it, which draws one picture an env step.

A single engine's processes run on one core, unless ``--cores`` says more: each waits for the next, and a core that has to be woken for every answer
costs more than it helps (``taskset -c 1 COMMAND`` does the same to a training).

Run as ``python benchmarks/minerl_speed.py``; a busy neighbour makes it slower, so ``load`` says how busy the machine was. ``MineRLWorld`` starts
this file itself as its worker for ``still`` (with the port as the only argument).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from worldpack_model.geometry import TICKS_PER_STEP

ROOT = Path(__file__).parents[1]
BLOCK = 100
"""Steps between two looks at the clock; numbers are medians over blocks."""
EVERY = ("still", "minerl", "voxel", "voxel_batch", "voxel_direct")


def processor_seconds() -> float:
    """Processor time of this process and its children, as far as ``/proc`` tells."""
    from worldpack_env.worlds.worker_process import descendants

    ticks = 0
    for pid in descendants(os.getpid()):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


ACTION = np.array([1, 0, 0, 0, 0, 0, 0, 0, 22.5], np.float32)


def rate(world: Any, seconds: float) -> dict[str, Any]:
    """Steps a second of a world, for about so many seconds."""
    world.reset(0)
    found = measure(lambda: world.step(ACTION), 1, seconds)
    world.close()
    return found


def batch_rate(make: Callable[[int], Any], ports: list[int], seconds: float) -> dict[str, Any]:
    """Steps a second of a batch of engines, all together; ``make`` makes one of a server's port."""
    from worldpack_env.reality import Reality
    from worldpack_env.starts import start_at

    left = iter(ports)
    reality = Reality("minerl", len(ports), factory=lambda name, *, frame_size: make(next(left)))
    slots = list(range(len(ports)))
    poses = [engine.reset(seed).pose for seed, engine in enumerate(reality.worlds)]
    starts = [start_at(engine, seed=seed, pose=pose, goals=pose[:3]) for seed, (engine, pose) in enumerate(zip(reality.worlds, poses, strict=True))]
    reality.start(slots, starts, slots)
    actions = np.tile(ACTION, (len(ports), 1))
    found = measure(lambda: reality.step(slots, actions), len(ports), seconds)
    reality.close()
    return {"engines": len(ports), **found}


def measure(step: Callable[[], Any], worlds: int, seconds: float) -> dict[str, Any]:
    """Median and best over blocks of steps of so many worlds."""
    for _ in range(BLOCK):
        step()
    rates = []
    processor = processor_seconds()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before = time.perf_counter()
        for _ in range(BLOCK):
            step()
        rates.append(worlds * BLOCK / (time.perf_counter() - before))
    processor = processor_seconds() - processor
    count, middle, best = worlds * BLOCK * len(rates), statistics.median(rates), max(rates)
    return {
        "env_steps_per_second": {"median": round(middle, 1), "best": round(best, 1)},
        "minerl_steps_per_second": {"median": round(TICKS_PER_STEP * middle), "best": round(TICKS_PER_STEP * best)},
        "per_processor_second": round(TICKS_PER_STEP * count / processor),
        "env_steps": count,
    }


def serve(what: str) -> subprocess.Popen[str]:
    """A Malmo server in a process of its own; its first line is its port."""
    return subprocess.Popen([sys.executable, __file__, "--serve", what], stdout=subprocess.PIPE, text=True)


def port_of(server: subprocess.Popen[str]) -> int:
    """What :func:`serve`'s server says."""
    assert server.stdout is not None
    return int(server.stdout.readline())


def run_server(what: str) -> None:
    from worldpack_env.worlds import malmo_server

    if what == "still":

        class StillPlayer(malmo_server.Player):
            """Answers every tick with the first one's bytes."""

            def __init__(self, mission: malmo_server.Mission, threads: int = 1) -> None:
                super().__init__(mission, threads)
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
    parser.add_argument("--only", nargs="+", choices=EVERY, help="measure these alone")
    parser.add_argument("--serve", choices=("still", "voxel"), help="be one of the Malmo servers that this starts itself")
    parser.add_argument("--cores", type=int, default=1, help="how many a single engine's processes may use together (Linux)")
    parser.add_argument("--engines", type=int, default=4, help="how many the batch has")
    options = parser.parse_args()
    if options.serve:
        run_server(options.serve)
        return
    from worldpack_env.worlds.minerl import MineRLWorld
    from worldpack_env.worlds.voxel import VoxelWorld
    from worldpack_model.provenance import provenance

    every_core = os.sched_getaffinity(0)
    some_cores = set(sorted(every_core)[-options.cores :])
    os.sched_setaffinity(0, some_cores)
    wanted = options.only or EVERY
    found: dict[str, Any] = {}
    if "still" in wanted:
        found["still"] = rate(MineRLWorld(python=sys.executable, worker=__file__), options.seconds)
    python = ROOT / ".venv-minerl" / "bin" / "python"
    about: dict[str, str] = {}

    def engine(port: int) -> MineRLWorld:
        return MineRLWorld(python=python, backend="minerl-0.4", server=port)

    if python.exists():
        for name in ("minerl", "voxel", "voxel_batch"):
            if name not in wanted:
                continue
            batch = name == "voxel_batch"
            os.sched_setaffinity(0, every_core if batch else some_cores)
            servers = [serve("still" if name == "minerl" else "voxel") for _ in range(options.engines if batch else 1)]
            try:
                ports = [port_of(server) for server in servers]
                if batch:
                    found[name] = batch_rate(engine, ports, options.seconds)
                else:
                    world = engine(ports[0])
                    found[name] = rate(world, options.seconds)
                    about = world.about
            finally:
                for server in servers:
                    server.kill()
                    server.wait()
    os.sched_setaffinity(0, some_cores)
    if "voxel_direct" in wanted:
        found["voxel_direct"] = rate(VoxelWorld(), options.seconds)
    report = {
        "frame_size": [64, 64],
        "speed": found,
        "ticks_per_step": TICKS_PER_STEP,
        "cores_used": {"one engine": options.cores, "batch": len(every_core)},
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
