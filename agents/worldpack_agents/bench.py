"""Speed of imagination, as JSON that says where it was measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from worldpack_model.checkpoint import write_json
from worldpack_model.provenance import provenance, weights_id

if TYPE_CHECKING:
    from worldpack_model import WorldPack


@dataclass(frozen=True)
class BenchSpeedConfig:
    """Env steps per second of imagination against slots and evaluations per step."""

    model: str = "voxel-64"
    """A shipped name or a folder."""
    slots: tuple[int, ...] = (1, 4, 16)
    """Batch sizes."""
    evaluations: tuple[int, ...] = (1, 2)
    """Network evaluations per env step."""
    history: int = 100
    """Frames already in each slot's memory (for the whole env: steps taken before the timed ones)."""
    repeats: int = 15
    """Timed steps of each setting; the median is reported."""
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""
    device: str = "auto"
    """auto, cpu or cuda."""
    out: Path | None = None
    """JSON file to write."""


def bench_speed(config: BenchSpeedConfig) -> dict[str, Any]:
    """Measures ``VectorEnv.step`` with random actions, and ``WorldPack.predict`` alone on a made-up walk of as long a history.

    Raises:
        CheckpointError: if there is no such model.
    """
    from worldpack_model import WorldPack

    if config.threads:
        torch.set_num_threads(config.threads)
    model = WorldPack.from_pretrained(config.model, device=config.device)
    rows = []
    for slots in config.slots:
        for evaluations in config.evaluations:
            predict, step = _time_predict(model, config, slots, evaluations), _time_env(model, config, slots, evaluations)
            rows.append(
                {
                    "slots": slots,
                    "evaluations": evaluations,
                    "ms_per_step": 1000 * step,
                    "ms_predict_alone": 1000 * predict,
                    "env_steps_per_second": slots / step,
                }
            )
    report = {
        "what": "VectorEnv.step of WorldPack/GoTo-v0 with random actions, median",
        "history": config.history,
        "weights": weights_id(config.model),
        "rows": rows,
        "provenance": provenance(),
    }
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(config.out, report)
    return report


def _time_predict(model: WorldPack, config: BenchSpeedConfig, slots: int, evaluations: int) -> float:
    """Median seconds of a prediction for all slots, each with ``history`` frames of a walk in memory."""
    memory, rng, k = model.new_memory(slots), np.random.default_rng(0), config.history
    poses = np.zeros((slots, k, 5))
    poses[..., 0], poses[..., 3] = np.linspace(0, 30, k), np.linspace(-180, 900, k)
    frames = np.broadcast_to(rng.integers(0, 256, (1, 1, *model.config.frame_size, 3), dtype=np.uint8), (slots, k, *model.config.frame_size, 3))
    for i in range(slots):
        model.remember(memory, [i], frames[i : i + 1], poses[i : i + 1])
    generators = [torch.Generator(model.device).manual_seed(i) for i in range(slots)]
    actions = np.zeros((slots, 9), np.float32)
    actions[:, 0] = 1
    return _median(lambda: model.predict(memory, list(range(slots)), actions, generators, evaluations=evaluations), config.repeats)


def _time_env(model: WorldPack, config: BenchSpeedConfig, slots: int, evaluations: int) -> float:
    """Median seconds of a whole step of the batched environment; steps in which an episode begins are in it."""
    from worldpack_agents.env_config import EnvConfig, make_envs

    task = EnvConfig(num_starts=slots, evaluations=evaluations, max_episode_steps=10 * (config.history + config.repeats))
    envs = make_envs(task, "imagined", num_envs=slots, model=model)
    try:
        envs.reset(seed=0)
        envs.action_space.seed(0)
        for _ in range(config.history):
            envs.step(envs.action_space.sample())
        return _median(lambda: envs.step(envs.action_space.sample()), config.repeats)
    finally:
        envs.close()


def _median(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats + 2):  # the first two warm up
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return float(np.median(times[2:]))
