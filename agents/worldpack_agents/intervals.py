"""Numbers with 95 % intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z95: Final = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""
RESAMPLES: Final = 2000


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float
    count: int
    """How many observations it was made of."""

    def text(self, digits: int = 2, *, percent: bool = False) -> str:
        """``0.71 [0.62, 0.79]``, or with ``percent`` ``71 % [62, 79]``."""
        if percent:
            return f"{100 * self.mean:.0f} % [{100 * self.low:.0f}, {100 * self.high:.0f}]"
        return f"{self.mean:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def wilson(successes: int, count: int) -> Interval:
    """Wilson's score interval of a share (E. B. Wilson 1927); honest for few trials and near 0 and 1.

    Raises:
        ValueError: if there is no trial or more successes than trials.
    """
    if count < 1 or not 0 <= successes <= count:
        raise ValueError(f"A share needs 0 <= successes <= count and count >= 1, got {successes} of {count}.")
    share, z2 = successes / count, Z95 * Z95
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    # at the ends the bound is exact in theory and off by rounding in floats
    low, high = (0.0 if successes == 0 else centre - half), (1.0 if successes == count else centre + half)
    return Interval(mean=share, low=low, high=high, count=count)


def bootstrap_mean(values: ArrayLike, generator: np.random.Generator, *, resamples: int = RESAMPLES) -> Interval:
    """Percentile bootstrap interval of a mean.

    Args:
        values: ``(n,)`` finite numbers, one for each independent episode.
        generator: where the resampling draws from.
        resamples: how many samples with replacement.

    Raises:
        ValueError: if there is no value or one is not finite.
    """
    array = _check(values, dims=1)
    means = _resampled_means(array[:, None], generator, resamples)[:, 0]
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(mean=float(array.mean()), low=float(low), high=float(high), count=len(array))


def bootstrap_curve(values: ArrayLike, generator: np.random.Generator, *, resamples: int = RESAMPLES) -> list[Interval]:
    """Bootstrap intervals of the mean of each column; episodes are resampled as wholes.

    Args:
        values: ``(n, t)`` one row for each episode; NaN where an episode had already ended.
        generator: where the resampling draws from.
        resamples: how many samples with replacement.

    Returns:
        One interval for each of the ``t`` columns that has a number.
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"values have shape {array.shape}, expected (episodes, steps) with at least one of each.")
    intervals = []
    for column in array.T:
        present = column[~np.isnan(column)]
        if len(present) == 0:
            break
        intervals.append(bootstrap_mean(present, generator, resamples=resamples))
    return intervals


def _resampled_means(array: NDArray[np.float64], generator: np.random.Generator, resamples: int) -> NDArray[np.float64]:
    chosen = generator.integers(len(array), size=(resamples, len(array)))
    return np.asarray(array[chosen].mean(axis=1), np.float64)


def _check(values: ArrayLike, *, dims: int) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    if array.ndim != dims or len(array) == 0:
        raise ValueError(f"values have shape {array.shape}, expected one row for each of at least one episode.")
    if not np.isfinite(array).all():
        raise ValueError("values hold a number that is not finite; leave out what was not measured.")
    return array
