"""Speed of imagination, as JSON that says where it was measured."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldpack_agents.provenance import provenance, weights_id
from worldpack_model.checkpoint import write_json


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
    """Frames already in each slot's memory."""
    repeats: int = 15
    """Timed steps of each setting; the median is reported."""
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""
    device: str = "auto"
    """auto, cpu or cuda."""
    out: Path | None = None
    """JSON file to write."""


def bench_speed(config: BenchSpeedConfig) -> dict[str, Any]:
    """Measures ``WorldPack.predict``, which is the whole env step but the task's arithmetic.

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
            memory = model.new_memory(slots)
            rng = np.random.default_rng(0)
            k = config.history
            poses = np.zeros((slots, k, 5))
            poses[..., 0], poses[..., 3] = np.linspace(0, 30, k), np.linspace(-180, 900, k)
            frames = np.broadcast_to(
                rng.integers(0, 256, (1, 1, *model.config.frame_size, 3), dtype=np.uint8), (slots, k, *model.config.frame_size, 3)
            )
            for i in range(slots):
                model.remember(memory, [i], frames[i : i + 1], poses[i : i + 1])
            generators = [torch.Generator(model.device).manual_seed(i) for i in range(slots)]
            actions = np.zeros((slots, 9), np.float32)
            actions[:, 0] = 1
            times = []
            for _ in range(config.repeats + 2):
                begin = time.perf_counter()
                model.predict(memory, list(range(slots)), actions, generators, evaluations=evaluations)
                times.append(time.perf_counter() - begin)
            step = float(np.median(times[2:]))
            rows.append({"slots": slots, "evaluations": evaluations, "ms_per_batch": 1000 * step, "env_steps_per_second": slots / step})
    report = {"what": "median of WorldPack.predict", "history": config.history, "weights": weights_id(config.model), "rows": rows, **provenance()}
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(config.out, report)
    return report
