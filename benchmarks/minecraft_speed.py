"""Speed of the minecraft world on one core: steps a second by size of the picture, time until a fresh process is ready, memory. Prints JSON.

This process and its Node process are bound to one core. Walks are scripted, through the terrain of two seeds, and every number of steps includes
movement, meshes of ground that comes into sight, and the picture. Ready means: a new world was made, reset and has given its first frame; the
libraries were imported before. The packages must be installed (``worldpack doctor minecraft --install``).
Run as ``python benchmarks/minecraft_speed.py``; a busy neighbour makes it slower, so ``load`` says how busy the machine was.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np

from worldpack_env.worlds import make_world
from worldpack_env.worlds.mesh_renderer import device_description
from worldpack_env.worlds.minecraft import MinecraftWorld
from worldpack_model.metrics import psnr
from worldpack_model.provenance import provenance

SIZES = ((64, 64), (128, 128), (360, 640))


def walk(n: int) -> np.ndarray:
    """Action number ``n`` of a walk that turns, and jumps now and then."""
    return np.array([1, 0, 0, 0, n % 3 == 0, 0, 0, 0, 20 * np.sin(n / 7)], np.float32)


def make(size: tuple[int, int]) -> MinecraftWorld:
    """A world that gives frames of a size."""
    world = make_world("minecraft", frame_size=size)
    assert isinstance(world, MinecraftWorld)
    return world


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="steps a seed at 64x64; larger pictures take fewer")
    options = parser.parse_args()
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    drawn_by = device_description()
    make((64, 64)).close()

    ready, resets, rates, slowest = [], [], {}, {}
    memory = 0.0
    for height, width in SIZES:
        count = options.steps if height < 300 else max(options.steps // 4, 10)
        times: list[float] = []
        for seed in (11, 23):
            began = time.perf_counter()
            world = make((height, width))
            world.reset(seed)
            ready.append(time.perf_counter() - began)
            for n in range(count):
                began = time.perf_counter()
                world.step(walk(n))
                times.append(time.perf_counter() - began)
            began = time.perf_counter()
            world.reset(seed + 1)
            resets.append(time.perf_counter() - began)
            assert world._process is not None
            status = Path(f"/proc/{world._process.pid}/status").read_text()
            memory = max(memory, int(status.split("VmHWM:")[1].split()[0]) / 1024)
            world.close()
        rates[f"{width}x{height}"] = round(len(times) / sum(times), 1)
        slowest[f"{width}x{height}"] = round(1e3 * max(times), 1)

    one, two = make((64, 64)), make((64, 64))
    pairs = [(one.reset(7), two.reset(7))] + [(one.step(walk(n)), two.step(walk(n))) for n in range(100)]
    report = {
        "steps_per_second": rates,
        "slowest_step_ms": slowest,
        "ready_seconds": {"median": round(statistics.median(ready), 2), "worst": round(max(ready), 2)},
        "reset_to_another_seed_seconds": round(statistics.median(resets), 2),
        "node_peak_megabytes": round(memory),
        "two_processes": {
            "same_poses": all(np.array_equal(a.pose, b.pose) for a, b in pairs),
            "same_frames": all(np.array_equal(a.frame, b.frame) for a, b in pairs),
            "lowest_psnr_db": float(min(psnr(a.frame[None], b.frame[None])[0] for a, b in pairs)),
        },
        "drawn_by": drawn_by,
        "cores": 1,
        "load": round(os.getloadavg()[0], 2),
        "provenance": provenance(),
    }
    one.close()
    two.close()
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
