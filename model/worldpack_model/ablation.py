"""The table of the paper's form: contexts against ranges and tasks, several seeds, with intervals.

A folder of trained models holds ``VARIANT-SEED/model`` for each context and each seed (``benchmarks/ablation.py`` trains one). Recorded poses are
given, as in the paper's evaluation, so that contexts are compared and not motion models.

Every seed's model imagines the same episodes. A cell's interval comes from a bootstrap over seeds and episodes together: models and worlds are both
drawn anew, and what differs between two variants is taken by the same draws of episodes. All cells are of the same worlds, so over all of them it is
worlds that are drawn, each with all of its episodes.

Legend: S seeds, E episodes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from worldpack_model.checkpoint import CheckpointError, read_manifest, weights_digest, write_json
from worldpack_model.config import VARIANTS
from worldpack_model.episodes import Episode, EpisodeError
from worldpack_model.evaluation import Rollout, held_out_loops, imagine, turning_point
from worldpack_model.metrics import Floats, Metric, features, frechet_distance, lpips_metric, psnr, ssim
from worldpack_model.provenance import provenance
from worldpack_model.world_model import WorldPack

ORDER = ("recent", "packing", "retrieval", "worldpack", "graded", "long")
"""From the least to the most that is expected of a context."""
RANGES = (5, 15, 30, 50)
TASKS = ("ABA", "ABCA")


@dataclass(frozen=True)
class AblateConfig:
    """Compares contexts over tasks and ranges; every model imagines the way home of the same held-out loops."""

    ablate: Path
    """Folder with ``VARIANT-SEED/model`` for each context and seed."""
    tasks: tuple[str, ...] = TASKS
    """ABA and ABCA."""
    ranges: tuple[int, ...] = RANGES
    """LoopNav's ranges in blocks."""
    episodes: int = 16
    """Episodes of each task and range, one world each."""
    against: str | None = None
    """Context that all others are compared with; none compares each with the one before it, from the least to the most that is expected."""
    seed: int = 0
    """Seed of the samplers' noise."""
    evaluations: int | None = None
    """Network evaluations per step; none takes the models' default."""
    lpips: bool = False
    """Also LPIPS (AlexNet); needs the `lpips` package and its weights."""
    device: str = "auto"
    """auto, cpu or cuda."""
    out: Path | None = None
    """JSON file to write."""


def find_runs(folder: Path) -> dict[str, dict[str, Path]]:
    """The trained models of a folder: by variant and seed.

    Raises:
        CheckpointError: if there are none, or a variant lacks a seed that another has.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("*/model")):
        match = re.fullmatch(r"(.+)-(\d+)", path.parent.name)
        if match and match[1] in VARIANTS:
            found.setdefault(match[1], {})[match[2]] = path
    if not found:
        raise CheckpointError(f"{folder} holds no VARIANT-SEED/model; known variants: {', '.join(VARIANTS)}. benchmarks/ablation.py trains them.")
    seeds = set().union(*found.values())
    for variant, runs in found.items():
        if set(runs) != seeds:
            raise CheckpointError(f"{variant} lacks seed {', '.join(sorted(seeds - set(runs)))}, which others have; train it or move theirs away.")
    return {variant: found[variant] for variant in sorted(found, key=lambda v: (ORDER.index(v) if v in ORDER else len(ORDER), v))}


class _Draws(Protocol):
    def __call__(self, table: Floats) -> Floats:
        """Means ``(draws,)`` of ``table (S, E)`` over the drawn seeds and episodes."""


def _resampler(seeds: int, episodes: int, *, draws: int = 2000, seed: int = 0) -> _Draws:
    """Draws seeds and episodes anew, the same ones for every table of this shape."""
    rng = np.random.default_rng(seed)
    s, e = rng.integers(seeds, size=(draws, seeds)), rng.integers(episodes, size=(draws, episodes))

    def means(table: Floats) -> Floats:
        drawn = table[s[:, :, None], e[:, None, :]]
        known = np.isfinite(drawn)
        with np.errstate(invalid="ignore"):
            result: Floats = np.where(known, drawn, 0).sum((1, 2)) / known.sum((1, 2))
        return result

    return means


def interval(table: Floats) -> tuple[float, float, float]:
    """Mean of ``table (S, E)`` and its 95 % interval by the bootstrap over seeds and episodes; not-a-number entries are left out."""
    if not np.isfinite(table).any():
        return math.nan, math.nan, math.nan
    low, high = np.nanpercentile(_resampler(*table.shape)(table), [2.5, 97.5])
    return float(np.nanmean(table)), float(low), float(high)


def by_world(tables: Sequence[Floats], worlds: Sequence[Sequence[int]]) -> Floats:
    """Means ``(S, W)`` over all entries of a world: cells show the same worlds, so their episodes are not independent of each other.

    Args:
        tables: ``(S, E)`` of each cell.
        worlds: the world of each of a cell's episodes.
    """
    whole, of = np.concatenate(tables, axis=1), np.concatenate([np.asarray(each) for each in worlds])
    known = np.isfinite(whole)
    with np.errstate(invalid="ignore"):
        columns = [np.where(known, whole, 0)[:, of == world].sum(1) / known[:, of == world].sum(1) for world in np.unique(of)]
    means: Floats = np.stack(columns, axis=1)
    return means


def ablate(
    config: AblateConfig, data: Mapping[str, Path], progress: Callable[[str, int, int], None] = lambda what, done, total: None
) -> dict[str, Any]:
    """Imagines the way home of every episode with every model; the returned dict is what ``out`` holds.

    Args:
        config: what to compare.
        data: folder of held-out episodes of each cell, such as ``{"ABA-15": ...}``.
        progress: told ``(what, done, total)``.

    Raises:
        CheckpointError: if models are missing.
        EpisodeError: if episodes are.
    """
    runs = find_runs(config.ablate)
    if config.against is not None and config.against not in runs:
        raise CheckpointError(f"{config.ablate} holds no {config.against} to compare with, but {', '.join(runs)}.")
    pairs = [(config.against, other) for other in runs if other != config.against] if config.against else list(pairwise(runs))
    seeds = list(next(iter(runs.values())))
    cells = [f"{task}-{reach}" for task in config.tasks for reach in config.ranges]
    loops = {cell: _read(cell, data, config.episodes) for cell in cells}
    metrics: dict[str, Metric] = {"psnr": psnr, "ssim": ssim} | ({"lpips": lpips_metric()} if config.lpips else {})
    judge = WorldPack.from_pretrained(str(next(iter(runs["worldpack" if "worldpack" in runs else next(iter(runs))].values()))), device=config.device)
    table: dict[str, dict[str, dict[str, Floats]]] = {}  # variant, cell, metric -> (S, E)
    curves: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    total = len(runs) * len(seeds) * len(cells)
    done = 0
    for variant, models in runs.items():
        table[variant] = {cell: {} for cell in cells}
        curves[variant] = {}
        loaded = [WorldPack.from_pretrained(str(models[seed]), device=config.device) for seed in seeds]
        for cell in cells:
            rollouts = []
            for model in loaded:
                begins = [turning_point(e) for e in loops[cell]]
                rollouts.append(imagine(model, loops[cell], begins, seed=config.seed, evaluations=config.evaluations, true_poses=True))
                done += 1
                progress("rollouts", done, total)
            table[variant][cell] = _measure(rollouts, metrics, judge)
            curves[variant][cell] = _curve(rollouts)
    report: dict[str, Any] = {
        "what": "way home of held-out loops imagined along recorded poses; look-around and way out given",
        "interval": "95 %, bootstrap over training seeds and worlds together; all_cells: worlds with all of their episodes",
        "revisit": "eye within 2 blocks and 25 degrees of a given frame's",
        "frechet": "squared Fréchet distance of imagined to true frames on pooled latents of one autoencoder; with the least and most of the seeds",
        "evaluations": config.evaluations,
        "seeds": seeds,
        "episodes": {cell: len(loops[cell]) for cell in cells},
        "world_seeds": {cell: [e.seed for e in loops[cell]] for cell in cells},
        "trained": {variant: [read_manifest(path).get("about", {}) for path in models.values()] for variant, models in runs.items()},
        "weights_sha256": {variant: [weights_digest(path) for path in models.values()] for variant, models in runs.items()},
        "table": {
            variant: {cell: {name: _cell(name, values) for name, values in table[variant][cell].items()} for cell in cells} for variant in runs
        },
        "steps_of_the_ladder": [
            {
                "variant": high,
                "over": low,
                "psnr_revisit": {c: interval(table[high][c]["psnr_revisit"] - table[low][c]["psnr_revisit"]) for c in cells},
            }
            | {
                "all_cells": interval(
                    by_world(
                        [table[high][c]["psnr_revisit"] - table[low][c]["psnr_revisit"] for c in cells],
                        [[episode.seed for episode in loops[c]] for c in cells],
                    )
                )
            }
            for low, high in pairs
        ],
        "psnr_revisit_each": {v: {c: _plain(table[v][c]["psnr_revisit"]) for c in cells} for v in runs},
        "psnr_by_step": curves,
        "provenance": provenance(),
    }
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(config.out, report)
    return report


def _read(cell: str, data: Mapping[str, Path], count: int) -> list[Episode]:
    if cell not in data:
        raise EpisodeError(f"No episodes of {cell} given; there are {', '.join(data) or 'none'}.")
    task, _, reach = cell.partition("-")
    return held_out_loops(data[cell], task, int(reach), count)


def _measure(rollouts: Sequence[Sequence[Rollout]], metrics: Mapping[str, Metric], judge: WorldPack) -> dict[str, Floats]:
    """Tables ``(S, E)`` of every metric, and ``(S,)`` of the Fréchet distance."""

    def of(metric: Metric, where: Callable[[Rollout], NDArray[np.bool_]]) -> Floats:
        return np.array([[_mean(metric(r.frames, r.truth), where(r)) for r in row] for row in rollouts])

    tables = {name: of(metric, lambda r: np.ones(len(r.frames), bool)) for name, metric in metrics.items()}
    tables["psnr_revisit"] = of(psnr, lambda r: r.revisit)
    tables["psnr_revisit_ceiling"] = np.array([[_mean(psnr(r.ceiling, r.truth), r.revisit) for r in row] for row in rollouts])
    truth = features(judge, np.concatenate([r.truth for r in rollouts[0]]))
    tables["frechet"] = np.array([frechet_distance(features(judge, np.concatenate([r.frames for r in row])), truth) for row in rollouts])
    return tables


def _mean(values: Floats, where: NDArray[np.bool_]) -> float:
    return float(values[where].mean()) if where.any() else math.nan


def _plain(table: Floats) -> list[list[float | None]]:
    """``table (S, E)`` as JSON data; None where there is no number."""
    return [[round(float(value), 4) if math.isfinite(value) else None for value in row] for row in table]


def _cell(name: str, values: Floats) -> tuple[float, float, float]:
    if name == "frechet":
        return float(values.mean()), float(values.min()), float(values.max())
    return interval(values)


def _curve(rollouts: Sequence[Sequence[Rollout]]) -> list[tuple[float, float, float]]:
    """PSNR by imagined step over seeds and episodes, as far as at least three episodes go."""
    quality = [[psnr(r.frames, r.truth) for r in row] for row in rollouts]
    longest = max(len(q) for q in quality[0])
    table = np.full((len(quality), len(quality[0]), longest), np.nan)
    for s, row in enumerate(quality):
        for e, values in enumerate(row):
            table[s, e, : len(values)] = values
    return [interval(table[..., t]) for t in range(longest) if np.isfinite(table[0, :, t]).sum() >= 3]
