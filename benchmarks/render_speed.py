"""Speed of the embedded world on one core: pictures a second by size, env steps a second, and the time to build a world. Prints JSON.

Poses are random walkable places of several worlds, looking about; every number is a median over single calls, after compilation.
Run as ``python benchmarks/render_speed.py``; a busy neighbour makes it slower, so ``load`` says how busy the machine was.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

import numpy as np

from worldpack_env.worlds import raycast
from worldpack_env.worlds.terrain import Terrain, build_terrain
from worldpack_env.worlds.voxel import VoxelWorld
from worldpack_model.provenance import provenance

SIZES = ((64, 64), (128, 128), (360, 640))


def seconds(call: Callable[[], object]) -> float:
    """Time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def random_poses(terrain: Terrain, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Poses at walkable places, any yaw, pitch from -15 to 25 degrees."""
    places = np.argwhere(terrain.surface.walkable)
    heights, (x0, z0) = terrain.surface.heights, terrain.surface.origin
    return [
        np.array([x0 + i + 0.5, heights[i, k], z0 + k + 0.5, rng.uniform(-180, 180), rng.uniform(-15, 25)])
        for i, k in places[rng.integers(len(places), size=count)]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=6, help="number of worlds")
    parser.add_argument("--poses", type=int, default=50, help="poses a world at 64x64; larger pictures take fewer")
    options = parser.parse_args()
    rng = np.random.default_rng(0)

    build_terrain(0)
    builds, terrains = [], []
    for seed in range(options.worlds):
        start = time.perf_counter()
        terrains.append(build_terrain(seed))
        builds.append(time.perf_counter() - start)

    pictures = {}
    for height, width in SIZES:
        raycast.render(terrains[0], np.array([0.5, 30.0, 0.5, 0.0, 0.0]), (height, width))
        count = max(options.poses * 64 * 64 // (height * width), 5)
        times = [
            seconds(lambda t=terrain, p=pose, s=(height, width): raycast.render(t, p, s))  # type: ignore[misc]
            for terrain in terrains
            for pose in random_poses(terrain, count, rng)
        ]
        pictures[f"{width}x{height}"] = round(1.0 / statistics.median(times), 1)

    world = VoxelWorld()
    world.reset(0)
    steps = []
    for n in range(500):
        action = np.array([1, 0, 0, 0, n % 3 == 0, 0, 0, 0, 20 * np.sin(n / 7)], np.float32)
        steps.append(seconds(lambda a=action: world.step(a)))  # type: ignore[misc]

    print(
        json.dumps(
            {
                "pictures_per_second": pictures,
                "steps_per_second_64x64": round(1.0 / statistics.median(steps), 1),
                "build_ms": round(1e3 * statistics.median(builds), 1),
                "load": round(os.getloadavg()[0], 2),
                "provenance": provenance(),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
