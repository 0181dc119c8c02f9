"""How well imagination ranks and scores policies: the numbers a user of a learned simulator needs before trusting it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pearson(imagined: ArrayLike, real: ArrayLike) -> float:
    """Pearson's correlation of the policies' scores ``(n,)``; not a number where all scores are equal.

    Raises:
        ValueError: if there are fewer than two policies or the lengths differ.
    """
    a, b = _pair(imagined, real)
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size > 0 else math.nan


def mean_maximum_rank_violation(imagined: ArrayLike, real: ArrayLike) -> float:
    """Mean over policies of the largest real score difference that imagination ranks the wrong way round (SIMPLER: Li et al. 2024, arXiv:2405.05941).

    0 is a perfect ranking; 0.05 means that a wrong choice costs about 0.05 of the score.

    Raises:
        ValueError: if there are fewer than two policies or the lengths differ.
    """
    a, b = _pair(imagined, real)
    wrong = np.sign(a[:, None] - a[None, :]) != np.sign(b[:, None] - b[None, :])
    return float((np.abs(b[:, None] - b[None, :]) * wrong).max(axis=1).mean())


def _pair(imagined: ArrayLike, real: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.asarray(imagined, np.float64), np.asarray(real, np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(f"Scores have shapes {a.shape} and {b.shape}, expected (n,) each with n >= 2 policies.")
    return a, b
