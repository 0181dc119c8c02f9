"""How well imagination ranks and scores policies: the numbers a user of a learned simulator needs before trusting it."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldpack_agents.intervals import RESAMPLES, Interval

LEAST_AGENTS: Final = 3
"""Two points always lie on a line."""


def pearson(imagined: ArrayLike, real: ArrayLike) -> float:
    """Pearson's correlation of the policies' scores ``(n,)``; not a number where all scores are equal.

    Of success in simulation and reality it is the sim-vs-real correlation coefficient, SRCC (Kadian et al. 2020, arXiv:1912.06321).

    Raises:
        ValueError: if there are fewer than two policies or the lengths differ.
    """
    a, b = _pair(imagined, real)
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size > 1e-12 else math.nan


def spearman(imagined: ArrayLike, real: ArrayLike) -> float:
    """Spearman's correlation: Pearson's of the ranks, equal scores sharing the mean of theirs.

    Raises:
        ValueError: if there are fewer than two policies or the lengths differ.
    """
    a, b = _pair(imagined, real)
    return pearson(_ranks(a), _ranks(b))


def mean_maximum_rank_violation(imagined: ArrayLike, real: ArrayLike) -> float:
    """Mean over policies of the largest real score difference that imagination ranks the wrong way round (SIMPLER: Li et al. 2024, arXiv:2405.05941).

    Policies i and j are ranked wrongly for i where (imagined i < imagined j) is not (real i < real j), as SIMPLER has it: of two that differ and that
    imagination cannot tell apart, one is. 0 is a perfect ranking; 0.05 means that a wrong choice costs about 0.05 of the score.

    Raises:
        ValueError: if there are fewer than two policies or the lengths differ.
    """
    a, b = _pair(imagined, real)
    wrong = (a[:, None] < a[None, :]) != (b[:, None] < b[None, :])
    return float((np.abs(b[:, None] - b[None, :]) * wrong).max(axis=1).mean())


def agreement(imagined: ArrayLike, real: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    """All three, of the policies' mean scores, with 95 % intervals from a bootstrap over starts; and what a perfect simulator would have.

    Every resample draws the same starts for all policies, in imagination and in the engine. The rank violation of noisy scores is biased upwards, and
    its interval's low end too: more starts help, not more resamples. How much of it as few starts alone can make is measured beside it: the rank
    violation between two samples of the engine's own outcomes, as if a perfect simulator had given one of them, from other starts.

    Args:
        imagined: ``(n, e)`` score of policy i from start j.
        real: the same from the same starts.
        seed: of the resampling.
        resamples: how many.

    Returns:
        ``pearson``, ``spearman``, ``mean_maximum_rank_violation`` and ``rank_violation_by_chance``, each as an interval with the number of policies
        as its count; None where it is not a number.
    """
    a, b = np.asarray(imagined, np.float64), np.asarray(real, np.float64)
    if a.shape != b.shape or a.ndim != 2 or len(a) < 2 or a.shape[1] < 1:
        raise ValueError(f"Scores have shapes {a.shape} and {b.shape}, expected (n, e) each with n >= 2 policies and e >= 1 starts.")
    rng = np.random.default_rng([seed, 41])
    drawn = [rng.integers(a.shape[1], size=a.shape[1]) for _ in range(resamples)]
    found: dict[str, Any] = {}
    for measure in (pearson, spearman, mean_maximum_rank_violation):
        value = measure(a.mean(1), b.mean(1))
        again = np.array([measure(a[:, j].mean(1), b[:, j].mean(1)) for j in drawn])
        again = again[np.isfinite(again)]
        if math.isfinite(value) and len(again):
            found[measure.__name__] = _with_bounds(value, again, len(a))
        else:
            found[measure.__name__] = None
    chance = np.array([mean_maximum_rank_violation(b[:, j].mean(1), b[:, k].mean(1)) for j, k in zip(drawn, drawn[1:] + drawn[:1], strict=True)])
    found["rank_violation_by_chance"] = _with_bounds(float(chance.mean()), chance, len(a))
    return found


def _with_bounds(value: float, resampled: NDArray[np.float64], count: int) -> dict[str, Any]:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return asdict(Interval(mean=value, low=float(low), high=float(high), count=count))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0; equal values share the mean of theirs."""
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    shared: NDArray[np.float64] = (last - (count + 1) / 2)[group]
    return shared


def _pair(imagined: ArrayLike, real: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.asarray(imagined, np.float64), np.asarray(real, np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(f"Scores have shapes {a.shape} and {b.shape}, expected (n,) each with n >= 2 policies.")
    return a, b
