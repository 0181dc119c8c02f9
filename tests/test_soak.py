"""Long runs: nothing grows, nothing slows down. `make test-soak`; minutes, so not part of `make test`."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

import worldpack_env  # noqa: F401 - registers the ids
from worldpack_model.config import PRESETS
from worldpack_model.world_model import WorldPack

pytestmark = [pytest.mark.soak, pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory and open files from Linux's /proc")]
PARTS = 10


def megabytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def soak(envs: gym.vector.VectorEnv, steps: int) -> tuple[list[float], list[int], list[float]]:
    """Plays random actions; memory in MB, open files, and median milliseconds of a step, of each tenth of the way."""
    rng = np.random.default_rng(0)
    envs.reset(seed=0)
    memory, files, speed = [], [], []
    for _ in range(PARTS):
        times = []
        for _ in range(steps // PARTS):
            actions = rng.integers(4, size=envs.num_envs)
            begin = time.perf_counter()
            envs.step(actions)
            times.append(1000 * (time.perf_counter() - begin))
        memory.append(megabytes())
        files.append(open_files())
        speed.append(statistics.median(times))
    envs.close()
    print(f"MB {[round(m) for m in memory]}, open files {files}, ms a step {[round(s, 1) for s in speed]}")
    return memory, files, speed


@pytest.fixture(scope="module")
def model() -> WorldPack:
    torch.manual_seed(0)
    return WorldPack(PRESETS["debug"]).eval().requires_grad_(False)


@pytest.mark.parametrize("name", ["WorldPack/GoTo-v0", "WorldPack/GoToReal-v0"])
def test_twenty_thousand_vector_steps(model: WorldPack, name: str) -> None:
    envs = gym.make_vec(name, num_envs=4, model=model, num_starts=8, nav_range=5, max_episode_steps=100)
    memory, files, speed = soak(envs, 20_000)
    assert max(memory[2:]) - memory[1] < 10, "megabytes, once all starts are made"
    assert len(set(files)) == 1
    assert statistics.median(speed[-3:]) < 1.25 * statistics.median(speed[1:4])


def test_an_endless_episode_fills_its_memory_and_no_more(model: WorldPack) -> None:
    envs = gym.make_vec("WorldPack/LoopNav-v0", num_envs=2, model=model, num_starts=2, nav_range=5, max_episode_steps=10**9)
    memory, files, speed = soak(envs, 12_000)
    kept = envs.unwrapped.rollout.simulator.memory
    assert kept.latents.shape[1] <= kept.recent + model.config.memory.capacity
    assert max(memory[6:]) - memory[5] < 30, "megabytes"
    assert len(set(files)) == 1
    assert statistics.median(speed[-3:]) < 1.25 * statistics.median(speed[4:7])
