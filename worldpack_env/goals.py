"""What an agent is told about its current goal: nothing, a compass, a vector, or a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from worldpack_env.starts import Start
from worldpack_env.tasks import TaskState
from worldpack_model.config import lookup
from worldpack_model.geometry import to_local

GOAL_OBS: Final = {"compass": "compass", "vector": "vector", "image": "goal_image", "none": None}
"""Name of a goal observation -> the key it adds to the observation dict."""
VECTOR_LIMIT: Final = 512.0
"""Goal vectors are clipped to this many blocks along each axis."""


class GoalView:
    """The goal's part of the observation.

    * ``compass``: ``(1,) float32`` degrees in [-180, 180], 0 = straight ahead, positive = to the right (MineRL Navigate's compass; of the task
      ``navigate``, what MineRL's compass shows).
    * ``vector``: ``(3,) float32`` blocks (right, up, forward) from the agent to the goal, clipped to +-512.
    * ``image``: ``goal_image (H, W, 3) uint8``, what an engine shows on arrival at the goal.
    * ``none``: no entry.
    """

    def __init__(self, kind: str, frame_size: tuple[int, int]) -> None:
        """Makes it.

        Args:
            kind: ``compass``, ``vector``, ``image`` or ``none``.
            frame_size: (height, width) of frames in pixels.

        Raises:
            ValueError: if there is no such goal observation.
        """
        self.kind, self.key = kind, lookup(GOAL_OBS, kind, "goal observation")
        shapes: dict[str, spaces.Space[Any]] = {
            "compass": spaces.Box(-180.0, 180.0, (1,), np.float32),
            "vector": spaces.Box(-VECTOR_LIMIT, VECTOR_LIMIT, (3,), np.float32),
            "image": spaces.Box(0, 255, (*frame_size, 3), np.uint8),
        }
        self.spaces: dict[str, spaces.Space[Any]] = {} if self.key is None else {self.key: shapes[kind]}

    def observe(self, state: TaskState, poses: NDArray[np.float64], starts: Sequence[Start]) -> dict[str, NDArray[Any]]:
        """Entries of the observation for ``n`` agents, as new arrays with a leading axis n.

        Args:
            state: n rows.
            poses: ``(n, 5)``.
            starts: n, for their goal pictures.
        """
        if self.key is None:
            return {}
        if self.kind == "compass" and state.compass is not None:
            return {self.key: state.compass[:, None].astype(np.float32)}
        if self.kind == "image":
            current = np.minimum(state.subgoal, state.count - 1) + 1
            return {self.key: np.stack([goal_frame(s, int(i)) for s, i in zip(starts, current, strict=True)])}
        local = to_local(state.target() - poses[:, :3], poses[:, 3])
        if self.kind == "vector":
            return {self.key: np.clip(local, -VECTOR_LIMIT, VECTOR_LIMIT).astype(np.float32)}
        return {self.key: bearing(local)[:, None].astype(np.float32)}


def bearing(local: NDArray[np.float64]) -> NDArray[np.float64]:
    """Degrees ``(n,)`` to the right of straight ahead, of displacements ``(n, 3)`` (right, up, forward)."""
    degrees: NDArray[np.float64] = np.degrees(np.arctan2(local[:, 0], local[:, 2]))
    return degrees


def goal_frame(start: Start, waypoint: int) -> NDArray[np.uint8]:
    """Picture ``(H, W, 3)`` of a waypoint of a start.

    Raises:
        ValueError: if the start has no goal pictures.
    """
    if start.goal_frames is None:
        raise ValueError("goal_obs='image' needs starts with goal frames, and this start has none; build it with StartBank.from_world.")
    frame: NDArray[np.uint8] = start.goal_frames[waypoint]
    return frame
