"""Speed of imagination, as JSON that says where it was measured."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

from worldpack_agents.roofline import draw, matrix_rate, median_seconds, memory_rate, operations, traffic
from worldpack_model.checkpoint import write_json
from worldpack_model.config import Precision
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
    compile: bool = False
    """Measure the compiled model as well."""
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""
    device: str = "auto"
    """auto, cpu or cuda."""
    precision: Precision = "auto"
    """Of the world model's arithmetic."""
    out: Path | None = None
    """JSON file to write."""
    picture: Path | None = None
    """PNG to write: the roofline."""


def bench_speed(config: BenchSpeedConfig) -> dict[str, Any]:
    """Measures ``VectorEnv.step`` with random actions, and ``WorldPack.predict`` alone on a made-up walk of as long a history.

    Raises:
        CheckpointError: if there is no such model.
    """
    from worldpack_model import WorldPack

    if config.threads:
        torch.set_num_threads(config.threads)
    model = WorldPack.from_pretrained(config.model, device=config.device, precision=config.precision)
    rate = matrix_rate(model)
    rows = []
    compiled = WorldPack.from_pretrained(config.model, device=config.device, precision=config.precision) if config.compile else None
    for slots, evaluations in itertools.product(config.slots, config.evaluations):
        call = _walker(model, config, slots, evaluations)
        flops, moved = operations(call), traffic(call)
        for timed in (model,) if compiled is None else (model, compiled.compile_for(slots)):
            predict = median_seconds(call if timed is model else _walker(timed, config, slots, evaluations), config.repeats)
            step = _time_env(timed, config, slots, evaluations)
            rows.append(
                {
                    "slots": slots,
                    "evaluations": evaluations,
                    "compiled": timed is compiled,
                    "ms_per_step": 1000 * step,
                    "ms_predict_alone": 1000 * predict,
                    "env_steps_per_second": slots / step,
                    "gflops_per_env_step": flops / slots / 1e9,
                    "gigabytes_per_env_step": moved / slots / 1e9,
                    "share_of_matrix_rate": flops / step / rate,
                }
            )
    report = {
        "what": "VectorEnv.step of WorldPack/GoTo-v0 with random actions, median",
        "history": config.history,
        "precision": "bfloat16" if model.bf16 else "float32",
        "matrix_gflops_per_second": rate / 1e9,
        "memory_gigabytes_per_second": memory_rate(model.device) / 1e9,
        "weights": weights_id(config.model),
        "rows": rows,
        "parts_of_a_prediction": {"slots": max(config.slots), "threads": 1, "share_of_time": _parts(model, config, max(config.slots))},
        "provenance": provenance(),
    }
    if config.picture is not None:
        draw(report, config.picture)
    return _written(report, config.out)


def _parts(model: WorldPack, config: BenchSpeedConfig, slots: int) -> dict[str, float]:
    """Where a prediction's time goes, as shares: on one thread, with the model's own number of evaluations."""
    from worldpack_model import world_model

    call = _walker(model, config, slots, model.config.diffusion.evaluations)
    timed: tuple[tuple[str, Any, str], ...] = (
        ("retrieval", world_model, "select"),
        ("motion", model.motion, "forward"),
        ("context", model.denoiser, "prepare"),
        ("evaluations", model.denoiser, "forward"),
        ("decoder", model.autoencoder, "decode"),
    )
    clocks = {name: _Clock(model.device) for name, _, _ in timed}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with contextlib.ExitStack() as stack:
            for name, owner, method in timed:
                stack.enter_context(mock.patch.object(owner, method, clocks[name].around(getattr(owner, method))))
            for _ in range(2):  # to warm up
                call()
            for clock in clocks.values():
                clock.seconds = 0.0
            begin = time.perf_counter()
            for _ in range(config.repeats):
                call()
            total = time.perf_counter() - begin
    finally:
        torch.set_num_threads(threads)
    shares = {name: clock.seconds / total for name, clock in clocks.items()}
    return shares | {"everything else": 1 - sum(shares.values())}


def _walker(model: WorldPack, config: BenchSpeedConfig, slots: int, evaluations: int) -> Callable[[], object]:
    """A call that predicts the next frame of all slots, each with ``history`` frames of a walk in memory."""
    memory, rng, k = model.new_memory(slots), np.random.default_rng(0), config.history
    poses = np.zeros((slots, k, 5))
    poses[..., 0], poses[..., 3] = np.linspace(0, 30, k), np.linspace(-180, 900, k)
    frames = np.broadcast_to(rng.integers(0, 256, (1, 1, *model.config.frame_size, 3), dtype=np.uint8), (slots, k, *model.config.frame_size, 3))
    for i in range(slots):
        model.remember(memory, [i], frames[i : i + 1], poses[i : i + 1])
    generators = [torch.Generator(model.device).manual_seed(i) for i in range(slots)]
    actions = np.zeros((slots, 9), np.float32)
    actions[:, 0] = 1
    return lambda: model.predict(memory, list(range(slots)), actions, generators, evaluations=evaluations)


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
        return median_seconds(lambda: envs.step(envs.action_space.sample()), config.repeats)
    finally:
        envs.close()


@dataclass(frozen=True)
class BenchTrainConfig:
    """Speed of PPO in imagination, and where its time goes."""

    model: str = "voxel-64"
    """A shipped name or a folder."""
    num_envs: int = 16
    """Slots."""
    updates: int = 8
    """PPO updates that are timed, after one to warm up."""
    compile: bool = False
    """Compile the world model."""
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""
    device: str = "auto"
    """auto, cpu or cuda."""
    precision: Precision = "auto"
    """Of the world model's arithmetic."""
    out: Path | None = None
    """JSON file to write."""


def bench_train(config: BenchTrainConfig) -> dict[str, Any]:
    """Times Stable-Baselines3's PPO in ``WorldPack/GoTo-v0``, with the settings of ``worldpack train-agent``.

    Three clocks run: in the world model (``predict`` and ``remember``), in the policy's network (its forward passes and ``train()``), and over all.

    Raises:
        CheckpointError: if there is no such model.
    """
    from worldpack_agents.env_config import EnvConfig, make_envs
    from worldpack_agents.train import TrainAgentConfig, build
    from worldpack_agents.vec_env import SB3VecEnv
    from worldpack_model import WorldPack

    if config.threads:
        torch.set_num_threads(config.threads)
    model = WorldPack.from_pretrained(config.model, device=config.device, precision=config.precision)
    settings = TrainAgentConfig(out=Path("."), env=EnvConfig(num_starts=config.num_envs, compile=config.compile), num_envs=config.num_envs)
    envs = make_envs(settings.env, "imagined", num_envs=config.num_envs, model=model)
    try:
        agent = build(settings, SB3VecEnv(envs))
        world, policy = _Clock(), _Clock()
        for owner, name, clock in (
            (model, "predict", world), (model, "remember", world),
            (agent.policy, "forward", policy), (agent.policy, "predict_values", policy), (agent, "train", policy),
        ):  # fmt: skip
            setattr(owner, name, clock.around(getattr(owner, name)))
        per_update = config.num_envs * settings.ppo.n_steps
        agent.learn(per_update)
        world.seconds = policy.seconds = 0.0
        begin = time.perf_counter()
        agent.learn(per_update * config.updates, reset_num_timesteps=False)
        total = time.perf_counter() - begin
    finally:
        envs.close()
    report = {
        "what": f"PPO in WorldPack/GoTo-v0, {config.num_envs} slots, {config.updates} updates of {per_update} env steps",
        "precision": "bfloat16" if model.bf16 else "float32",
        "compiled": config.compile,
        "env_steps_per_second": per_update * config.updates / total,
        "share_of_time": {
            "world model": world.seconds / total,
            "policy network": policy.seconds / total,
            "everything else": 1 - (world.seconds + policy.seconds) / total,
        },
        "weights": weights_id(config.model),
        "provenance": provenance(),
    }
    return _written(report, config.out)


class _Clock:
    """Adds up the time spent in calls, those within each other once; on a GPU until it has done what they asked for."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.seconds, self._inside = 0.0, False
        self._cuda = device is not None and device.type == "cuda"

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return call(*args, **kwargs)
            self._inside, begin = True, time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                if self._cuda:
                    torch.cuda.synchronize()
                self.seconds += time.perf_counter() - begin
                self._inside = False

        return timed


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
    """Batch size of the comparison of histories."""
    context_slots: tuple[int, ...] = (1, 16)
    """Batch sizes of the comparison of contexts."""
    repeats: int = 60
    """Timed predictions of each setting, one of each in turn."""
    compile: bool = False
    """Compile the world models."""
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
    if config.compile:
        for one, slots in itertools.product((model, other), {config.slots, *config.context_slots}):
            one.compile_for(slots)
    held = [_walked(model, config.slots, frames, progress) for frames in config.histories]
    kept = [int(memory.keyframes.max()) + min(memory.recent, frames) for memory, frames in zip(held, config.histories, strict=True)]
    times = _in_turn([_prediction(model, memory) for memory in held], config.repeats)
    contexts = [row for slots in config.context_slots for row in _contexts(model, other, slots, config, progress)]
    report = {
        "what": f"WorldPack.predict, milliseconds; ratios are medians over {config.repeats} turns",
        "compiled": config.compile,
        "history_slots": config.slots,
        "by_history": [{"frames": frames, "kept": kept[i], **_against(times[i], times[0])} for i, frames in enumerate(config.histories)],
        "by_context": contexts,
        "megabytes_per_1000_frames": 1000 * model.new_memory(1).latents[0, 0].numel() * 2 / 2**20,
        "weights": [weights_id(config.model), weights_id(config.against)],
        "provenance": provenance(),
    }
    return _written(report, config.out)


def _contexts(
    model: WorldPack, other: WorldPack, slots: int, config: BenchMemoryConfig, progress: Callable[[str, int, int], None]
) -> list[dict[str, Any]]:
    """What the many frames of ``model``'s context cost against the few of ``other``'s, and the many against themselves: what is noise."""
    first = config.histories[0]
    many, few = (_prediction(one, _walked(one, slots, first, progress)) for one in (model, other))
    times = _in_turn([many, few, many], config.repeats)
    rows = [
        {"model": config.against, "frames": other.config.packing.frames, **_against(times[1], times[1])},
        {"model": config.model, "frames": model.config.packing.frames, **_against(0.5 * (times[0] + times[2]), times[1])},
        {"model": f"{config.model}, against itself", "frames": model.config.packing.frames, **_against(times[2], times[0])},
    ]
    return [{"slots": slots} | row for row in rows]


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


def _written(report: dict[str, Any], out: Path | None) -> dict[str, Any]:
    """The report, also written to ``out`` where one is given."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, report)
    return report
