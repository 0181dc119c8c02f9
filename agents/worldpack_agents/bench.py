"""Speed of imagination, as JSON that says where it was measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldpack_model.checkpoint import write_json
from worldpack_model.provenance import provenance, weights_id

if TYPE_CHECKING:
    from worldpack_model import WorldPack
    from worldpack_model.memory import CompressedMemory


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


@dataclass(frozen=True)
class BenchMemoryConfig:
    """What a long history and many remembered frames cost."""

    model: str = "voxel-64"
    """A shipped name or a folder."""
    against: str = "voxel-64-recent"
    """The same network with few recent frames as context."""
    histories: tuple[int, ...] = (100, 1000, 10_000, 100_000)
    """Frames already in memory; all of them are kept, whatever the model's own capacity."""
    slots: int = 1
    """Batch size."""
    repeats: int = 60
    """Timed predictions of each setting, one of each in turn."""
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""
    device: str = "auto"
    """auto, cpu or cuda."""
    out: Path | None = None
    """JSON file to write."""


def bench_memory(config: BenchMemoryConfig, progress: Callable[[str, int, int], None] = lambda what, done, total: None) -> dict[str, Any]:
    """Times ``WorldPack.predict`` by length of history, and by the number of frames in the context.

    What is compared is timed in turn, prediction by prediction, so that a neighbour's load falls on all alike; ratios are medians over turns.

    Raises:
        CheckpointError: if there is no such model.
    """
    from worldpack_model import WorldPack

    if config.threads:
        torch.set_num_threads(config.threads)
    model, other = (WorldPack.from_pretrained(name, device=config.device) for name in (config.model, config.against))
    held = [_walked(model, config.slots, frames, progress) for frames in config.histories]
    kept = [int(memory.keyframes.max()) + memory.recent for memory in held]
    times = _in_turn([_prediction(model, memory) for memory in held], config.repeats)
    first = config.histories[0]
    few = _walked(other, config.slots, first, progress)
    # between two of the same, the turns show what is noise
    pair = _in_turn([_prediction(model, held[0]), _prediction(other, few), _prediction(model, held[0])], config.repeats)
    report = {
        "what": f"WorldPack.predict of {config.slots} slots, milliseconds; ratios are medians over {config.repeats} turns",
        "by_history": [{"frames": frames, "kept": kept[i], **_against(times[i], times[0])} for i, frames in enumerate(config.histories)],
        "by_context": [
            {"model": config.against, "frames": other.config.packing.frames, **_against(pair[1], pair[1])},
            {"model": config.model, "frames": model.config.packing.frames, **_against(0.5 * (pair[0] + pair[2]), pair[1])},
        ],
        "same_twice": _against(pair[2], pair[0]),
        "megabytes_per_1000_frames": 1000 * model.new_memory(1).latents[0, 0].numel() * 2 / 2**20,
        "weights": [weights_id(config.model), weights_id(config.against)],
        "provenance": provenance(),
    }
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(config.out, report)
    return report


def _walked(model: WorldPack, slots: int, frames: int, progress: Callable[[str, int, int], None]) -> CompressedMemory:
    """A memory that holds every one of ``frames`` frames of a walk through a square of 200 blocks."""
    from worldpack_model.memory import CompressedMemory

    settings = replace(model.config.memory, capacity=max(frames, model.config.memory.capacity), min_distance=0.0)
    memory = CompressedMemory(settings, num_slots=slots, recent=model.config.packing.recent, latent_shape=model.latent_shape, device=model.device)
    rng, poses, latents = np.random.default_rng(0), np.zeros((slots, 5)), torch.zeros((slots, *model.latent_shape), device=model.device)
    actions = torch.zeros((slots, 9), device=model.device)
    for step in range(frames):
        poses[:, 3] = (poses[:, 3] + rng.choice([-22.5, 0, 0, 0, 22.5], slots) + 180) % 360 - 180
        yaw = np.radians(poses[:, 3])
        poses[:, 0], poses[:, 2] = (poses[:, 0] - 0.86 * np.sin(yaw)) % 200, (poses[:, 2] + 0.86 * np.cos(yaw)) % 200
        memory.append(range(slots), latents, torch.from_numpy(poses).to(model.device), actions, imagined=step > 50)
        if step % 1000 == 999 or step + 1 == frames:
            progress(f"walk of {frames} frames", step + 1, frames)
    return memory


def _prediction(model: WorldPack, memory: CompressedMemory) -> Callable[[], object]:
    generators = [torch.Generator(model.device).manual_seed(i) for i in range(memory.num_slots)]
    actions = np.zeros((memory.num_slots, 9), np.float32)
    actions[:, 0] = 1
    return lambda: model.predict(memory, list(range(memory.num_slots)), actions, generators)


def _in_turn(calls: Sequence[Callable[[], object]], repeats: int) -> NDArray[np.float64]:
    """Milliseconds ``(len(calls), repeats)`` of each call, one of each in turn, after two turns to warm up."""
    times = np.zeros((len(calls), repeats + 2))
    for turn in range(repeats + 2):
        for i, call in enumerate(calls):
            begin = time.perf_counter()
            call()
            times[i, turn] = 1000 * (time.perf_counter() - begin)
    return times[:, 2:]


def _against(times: NDArray[np.float64], base: NDArray[np.float64]) -> dict[str, float]:
    return {"milliseconds": float(np.median(times)), "ratio": float(np.median(times / base))}


def _median(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats + 2):  # the first two warm up
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return float(np.median(times[2:]))
