"""What a player looks at: the block in the middle of the view."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from worldpack_env.worlds import REACH
from worldpack_model.geometry import forward_vector

Cell = tuple[int, int, int]


def block_in_sight(eye: Sequence[float], yaw: float, pitch: float, blocks: NDArray[np.uint8], stops: Callable[[int], bool]) -> Cell | None:
    """The first cell of a grid that a look meets within ``REACH`` and that stops it; None where there is none.

    Args:
        eye: ``(3,)`` in cells of the grid.
        yaw: degrees.
        pitch: degrees.
        blocks: ``(X, Y, Z)`` kinds of blocks; outside of the grid nothing stops a look.
        stops: whether a kind of block does.
    """
    cell = [math.floor(v) for v in eye]
    direction = forward_vector(yaw, pitch).tolist()
    step = [1 if d > 0 else -1 for d in direction]
    span = [1 / max(abs(d), 1e-12) for d in direction]
    gap = [s * (c + 1 - e if d > 0 else e - c) for s, c, e, d in zip(span, cell, eye, direction, strict=True)]
    while True:
        if all(0 <= c < side for c, side in zip(cell, blocks.shape, strict=True)) and stops(int(blocks[cell[0], cell[1], cell[2]])):
            return cell[0], cell[1], cell[2]
        n = gap.index(min(gap))
        if gap[n] > REACH:
            return None
        cell[n] += step[n]
        gap[n] += span[n]
