"""Open-loop rollouts against the truth: image metrics, where the memory shows, curves by step, intervals.

The protocol is LoopNav's: the look-around and the way out are given, the way home is imagined along the recorded actions. Frame ``t`` of the
imagined episode is compared with frame ``t`` of the recorded one, both counted from the episode's first frame; nothing is realigned.

Legend: T frames of an episode, E episodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from worldpack_model.checkpoint import find_model, read_manifest, weights_digest, write_json
from worldpack_model.episodes import Episode, EpisodeError, EpisodeIndex, fitted, in_env_steps, site_of, split_of
from worldpack_model.geometry import wrap_degrees
from worldpack_model.metrics import Floats, bootstrap, detail, psnr, ssim
from worldpack_model.provenance import provenance
from worldpack_model.world_model import WorldPack


def revisited(poses: Floats, begin: int, *, distance: float = 2.0, angle: float = 25.0) -> NDArray[np.bool_]:
    """Which frames from ``begin`` on show a view that was given before.

    Args:
        poses: ``(T, 5)`` true poses.
        begin: first imagined frame; those before it were given.
        distance: blocks on the ground plane, at most, between the two eyes.
        angle: degrees of yaw and of pitch, at most, between the two views.

    Returns:
        ``(T - begin,) bool``.
    """
    given, later = poses[:begin], poses[begin:]
    offset = np.linalg.norm(later[:, None, [0, 2]] - given[None, :, [0, 2]], axis=-1)
    turn = np.abs(wrap_degrees(later[:, None, 3] - given[None, :, 3]))
    tilt = np.abs(later[:, None, 4] - given[None, :, 4])
    near: NDArray[np.bool_] = ((offset <= distance) & (turn <= angle) & (tilt <= angle)).any(axis=1)
    return near


@dataclass(frozen=True)
class Rollout:
    """An imagined rest of an episode beside the truth; ``n`` frames from ``begin`` on."""

    begin: int
    """First imagined frame."""
    frames: NDArray[np.uint8]
    """``(n, H, W, 3)`` imagined."""
    truth: NDArray[np.uint8]
    """``(n, H, W, 3)`` recorded."""
    ceiling: NDArray[np.uint8]
    """``(n, H, W, 3)`` recorded, through the autoencoder: the best the model could show."""
    poses: Floats
    """``(n, 5)`` where the model thought it was."""
    true_poses: Floats
    """``(n, 5)``."""
    revisit: NDArray[np.bool_]
    """``(n,)`` the true view was given before."""
    retrieved: NDArray[np.int64]
    """``(n, k)`` numbers of the frames that were retrieved for each, best first, -1 where unused."""


def imagine(
    model: WorldPack,
    episodes: Sequence[Episode],
    begins: Sequence[int],
    *,
    seed: int = 0,
    evaluations: int | None = None,
    true_poses: bool = False,
    pose_noise: tuple[float, float] = (0.0, 0.0),
    steps: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Rollout]:
    """Imagines the rest of each episode along its recorded actions, all episodes in one batch.

    Args:
        model: the world model.
        episodes: recorded episodes.
        begins: first frame to imagine of each; the frames before it are given as real memory.
        seed: episode i draws its noise from a generator seeded with ``seed + i``.
        evaluations: network evaluations per step; None takes the model's default.
        true_poses: tell the model the recorded poses instead of letting it move by itself.
        pose_noise: standard deviations, in blocks along x and z and in degrees of yaw, of an error put on every pose that is told, each for itself.
        steps: imagine at most so many frames of each.
        progress: told ``(done, total)`` steps.
    """
    memory = model.new_memory(len(episodes))
    told = [_noised(episode.poses, *pose_noise, np.random.default_rng([seed + i, 1])) for i, episode in enumerate(episodes)]
    generators = [torch.Generator(model.device).manual_seed(seed + i) for i in range(len(episodes))]
    ends = []
    for i, (episode, begin) in enumerate(zip(episodes, begins, strict=True)):
        if not 1 <= begin < len(episode):
            raise ValueError(f"begin is {begin}, expected 1 .. {len(episode) - 1} for an episode of {len(episode)} frames.")
        model.remember(memory, [i], episode.frames[None, :begin], told[i][None, :begin], episode.actions[None, : begin - 1])
        ends.append(len(episode) if steps is None else min(len(episode), begin + steps))
    shown: list[list[NDArray[np.uint8]]] = [[] for _ in episodes]
    believed: list[list[Floats]] = [[] for _ in episodes]
    retrieved: list[list[NDArray[np.int64]]] = [[] for _ in episodes]
    longest = max(end - begin for end, begin in zip(ends, begins, strict=True))
    for k in range(longest):
        active = [i for i in range(len(episodes)) if begins[i] + k < ends[i]]
        actions = np.stack([episodes[i].actions[begins[i] + k - 1] for i in active])
        given = np.stack([told[i][begins[i] + k] for i in active]) if true_poses else None
        p = model.predict(memory, active, actions, [generators[i] for i in active], evaluations=evaluations, poses=given)
        if not p.finite.all():
            raise FloatingPointError(f"The model predicted a frame that is not finite at imagined step {k}; its weights are not usable.")
        for row, i in enumerate(active):
            shown[i].append(p.frames[row])
            believed[i].append(p.poses[row])
            retrieved[i].append(p.retrieved[row])
        progress(k + 1, longest)
    rollouts = []
    for i, (episode, begin) in enumerate(zip(episodes, begins, strict=True)):
        truth = episode.frames[begin : ends[i]]
        rollouts.append(
            Rollout(
                begin,
                np.stack(shown[i]),
                truth,
                model.decode(model.encode(truth)),
                np.stack(believed[i]),
                episode.poses[begin : ends[i]],
                revisited(episode.poses, begin)[: ends[i] - begin],
                np.stack(retrieved[i]),
            )
        )
    return rollouts


def _noised(poses: Floats, blocks: float, degrees: float, rng: np.random.Generator) -> Floats:
    """``poses (T, 5)`` with an error of its own on each."""
    noise = rng.normal(size=(len(poses), 3)) * [blocks, blocks, degrees]
    noised = poses.copy()
    noised[:, [0, 2, 3]] += noise
    noised[:, 3] = wrap_degrees(noised[:, 3])
    return noised


def strip(rows: Sequence[NDArray[np.uint8]], columns: int, *, scale: int = 1) -> NDArray[np.uint8]:
    """One picture: each row shows ``columns`` frames spread evenly over its ``(n, H, W, 3)`` frames."""
    picked = [np.linspace(0, len(row) - 1, columns).round().astype(int) for row in rows]
    picture = np.concatenate([np.concatenate(list(row[p]), axis=1) for row, p in zip(rows, picked, strict=True)])
    return picture.repeat(scale, axis=0).repeat(scale, axis=1)


def turning_point(episode: Episode) -> int:
    """First frame to imagine, or the middle of an episode that has no way home.

    The first frame of the way home is given as well: one more than LoopNav's protocol gives (``loopnav.py`` begins with it).
    """
    return episode.turn_index + 1 if episode.turn_index is not None and episode.turn_index + 1 < len(episode) else len(episode) // 2


def rollout_picture(model: WorldPack, index: EpisodeIndex, *, count: int = 4, columns: int = 16) -> NDArray[np.uint8]:
    """Real frames above imagined ones, poses given, for the second halves of the first ABA-15 episodes (or any others) of a folder."""
    entries = (list(index.filter(task="ABA", nav_range=15)) or list(index))[:count]
    episodes = [index.read(entry) for entry in entries]
    rollouts = imagine(model, episodes, [turning_point(e) for e in episodes], true_poses=True)
    return strip([row for r in rollouts for row in (r.truth, r.frames)], columns)


def held_out_loops(folder: Path, task: str, nav_range: int, count: int, size: tuple[int, int] | None = None) -> list[Episode]:
    """The first ``count`` loops of a folder of a task and range, with a frame for every env step; of ``size`` (height, width) if one is given.

    Raises:
        EpisodeError: if there are none, or they are of worlds that models are trained on.
    """
    index = EpisodeIndex.open(folder)
    entries = [e for e in index.filter(task=task, nav_range=nav_range) if e.turn_index is not None][:count]
    if not entries:
        raise EpisodeError(f"{folder} holds no {task}-{nav_range} episodes; record some or choose another task and range.")
    # others record Minecraft too, on seeds that are in no split
    own = [e for e in entries if e.world == "voxel" or e.site == site_of(e.world, e.seed)]
    seen = [e.seed for e in own if split_of(e.seed) == "train"]
    if seen:
        raise EpisodeError(f"{folder} holds worlds of the training split (seed {seen[0]}); evaluate on held-out ones (--split test).")
    picture = None if size is None else lambda frame: fitted(frame, size)
    return [in_env_steps(index.read(entry, picture=picture)) for entry in entries]


@dataclass(frozen=True)
class EvalModelConfig:
    """Imagines the second half of held-out loops and compares with the truth."""

    models: tuple[str, ...] = ("voxel-64", "voxel-64-recent")
    """Shipped names or folders; each is compared with the first."""
    data: Path | None = None
    """Folder of held-out episodes; the command line records some in the engine where none is given."""
    task: str = "ABA"
    """ABA or ABCA."""
    nav_range: int = 15
    """LoopNav's range in blocks."""
    episodes: int = 32
    """Episodes, one world each."""
    poses: Literal["model", "true"] = "model"
    """model: only the actions are given, the model moves by itself; true: recorded poses are given, as in the paper's evaluation."""
    pose_noise: tuple[float, float] = (0.0, 0.0)
    """Standard deviations of an error on every pose that is told: blocks along x and z, degrees of yaw."""
    evaluations: int | None = None
    """Network evaluations per step; none takes the model's default."""
    seed: int = 0
    """Seed of the sampler's noise."""
    device: str = "auto"
    """auto, cpu or cuda."""
    out: Path | None = None
    """JSON file to write."""
    pictures: Path | None = None
    """PNG to write: the three longest rollouts, each the true frames above those of every model."""


def evaluate_model(config: EvalModelConfig, progress: Callable[[str, int, int], None] = lambda what, done, total: None) -> dict[str, Any]:
    """Runs the evaluation; the returned dict is what ``out`` holds.

    Raises:
        EpisodeError: if the folder has no such episodes, or holds worlds that models are trained on.
    """
    if config.data is None:
        raise EpisodeError("No episodes given; record held-out ones with `worldpack record --split test --out DIR` and pass --data DIR.")
    EpisodeIndex.open(config.data)  # says what is wrong with it before a model is loaded
    first = WorldPack.from_pretrained(config.models[0], device=config.device)
    episodes = held_out_loops(config.data, config.task, config.nav_range, config.episodes, first.config.frame_size)
    begins = [turning_point(e) for e in episodes]
    results: list[dict[str, Any]] = []
    rollouts: dict[str, list[Rollout]] = {}
    for name in config.models:
        model = first if name == config.models[0] else WorldPack.from_pretrained(name, device=config.device)
        rollouts[name] = imagine(
            model,
            episodes,
            begins,
            seed=config.seed,
            evaluations=config.evaluations,
            true_poses=config.poses == "true",
            pose_noise=config.pose_noise,
            progress=lambda done, total, name=name: progress(name, done, total),  # type: ignore[misc]
        )
        results.append({"model": name, **_scores(rollouts[name]), "weights_sha256": weights_digest(find_model(name))})
        results[-1]["trained"] = read_manifest(find_model(name)).get("about", {})
    report: dict[str, Any] = {
        "task": f"{config.task}-{config.nav_range}",
        "poses": config.poses,
        "pose_noise": config.pose_noise,
        "evaluations": config.evaluations,
        "episodes": len(episodes),
        "world_seeds": [e.seed for e in episodes],
        "revisit": "eye within 2 blocks and 25 degrees of a given frame's",
        "interval": "95 %, bootstrap over episodes (worlds)",
        "models": results,
        "differences": [_difference(config.models[0], other, rollouts) for other in config.models[1:]],
        "provenance": provenance(),
    }
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(config.out, report)
    if config.pictures is not None:
        import cv2

        longest = sorted(range(len(episodes)), key=lambda i: begins[i] - len(episodes[i]))[:3]
        rows = [row for i in longest for row in (rollouts[config.models[0]][i].truth, *(r[i].frames for r in rollouts.values()))]
        config.pictures.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(config.pictures), np.ascontiguousarray(strip(rows, 14)[..., ::-1]))
    return report


def _mean(values: Floats, where: NDArray[np.bool_]) -> float:
    return float(values[where].mean()) if where.any() else math.nan


def _scores(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    quality = [psnr(r.frames, r.truth) for r in rollouts]
    best = [psnr(r.ceiling, r.truth) for r in rollouts]
    structure = [ssim(r.frames, r.truth) for r in rollouts]
    every = [np.ones(len(r.frames), bool) for r in rollouts]
    drift = [np.linalg.norm(r.poses[:, :3] - r.true_poses[:, :3], axis=1) for r in rollouts]
    turned = [np.abs(wrap_degrees(r.poses[:, 3] - r.true_poses[:, 3])) for r in rollouts]
    fine = [(detail(r.frames), detail(r.truth)) for r in rollouts]
    return {
        "psnr": bootstrap([_mean(q, w) for q, w in zip(quality, every, strict=True)]),
        "psnr_revisit": bootstrap([_mean(q, r.revisit) for q, r in zip(quality, rollouts, strict=True)]),
        "psnr_elsewhere": bootstrap([_mean(q, ~r.revisit) for q, r in zip(quality, rollouts, strict=True)]),
        "psnr_autoencoder_revisit": bootstrap([_mean(q, r.revisit) for q, r in zip(best, rollouts, strict=True)]),
        "ssim": bootstrap([_mean(q, w) for q, w in zip(structure, every, strict=True)]),
        "ssim_revisit": bootstrap([_mean(q, r.revisit) for q, r in zip(structure, rollouts, strict=True)]),
        "detail_kept": bootstrap([float(made.mean() / true.mean()) for made, true in fine]),
        "detail_kept_autoencoder": bootstrap([float(detail(r.ceiling).mean() / true.mean()) for r, (_, true) in zip(rollouts, fine, strict=True)]),
        "detail_kept_last_tenth": bootstrap([float(_last_tenth(made) / _last_tenth(true)) for made, true in fine]),
        "final_drift_blocks": bootstrap([float(d[-1]) for d in drift]),
        "median_final_drift_blocks": bootstrap([float(d[-1]) for d in drift], middle="median"),
        "median_final_turn_degrees": bootstrap([float(d[-1]) for d in turned], middle="median"),
        "imagined_frames": int(sum(len(q) for q in quality)),
        "revisit_frames": int(sum(r.revisit.sum() for r in rollouts)),
        "psnr_by_step": _by_step(quality),
        "detail_by_step": _by_step([made for made, _ in fine]),
        "detail_truth_by_step": _by_step([true for _, true in fine]),
        "drift_blocks_by_step": _by_step(drift),
        "median_drift_blocks_by_step": _by_step(drift, middle="median"),
    }


def _last_tenth(values: Floats) -> float:
    return float(values[-max(1, len(values) // 10) :].mean())


def _by_step(values: Sequence[Floats], middle: Literal["mean", "median"] = "mean") -> list[tuple[float, float, float]]:
    """Mean or median over episodes and its interval at each step that at least three of them have."""
    table = np.full((len(values), max(len(v) for v in values)), np.nan)
    for i, v in enumerate(values):
        table[i, : len(v)] = v
    return [bootstrap(column, draws=400, middle=middle) for column in table.T if np.isfinite(column).sum() >= 3]


def _difference(first: str, other: str, rollouts: dict[str, list[Rollout]]) -> dict[str, Any]:
    """Paired by episode: both models imagined the same frames."""
    gain = [_mean(psnr(a.frames, a.truth) - psnr(b.frames, b.truth), a.revisit) for a, b in zip(rollouts[first], rollouts[other], strict=True)]
    return {"model": first, "over": other, "psnr_revisit_gain": bootstrap(gain)}
