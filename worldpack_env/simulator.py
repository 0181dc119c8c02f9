"""What an environment needs of the thing that shows it the world.

A :class:`Simulator` is a batch of slots that each show one episode. The imagined one (``imagination.Imagination``) asks the world model, the
real one (``reality.Reality``) asks engines. Tasks, rewards, spaces and autoreset live above it and cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from worldpack_env.starts import Start


@dataclass(frozen=True)
class Views:
    """What the asked slots show, in the order they were asked (``n`` of them)."""

    frames: NDArray[np.uint8] | torch.Tensor
    """``(n, H, W, 3) uint8`` RGB; a tensor where the simulator was asked for one."""
    poses: NDArray[np.float64]
    """``(n, 5) float64``: true in an engine, the model's own in imagination."""
    blocked: NDArray[np.bool_]
    """``(n,)`` True where something stopped the commanded walk."""
    failed: NDArray[np.bool_]
    """``(n,)`` True where the simulator lost this slot (a prediction that is not finite, an engine that lost its episode); its frame is the last
    good one."""
    retrieved: NDArray[np.int64]
    """``(n, k)`` step numbers of the remembered frames the picture was predicted from, -1 where unused; k is 0 in engines.
    Step numbers count the frames of the episode from its first context frame, which is 0."""
    mission: NDArray[np.float64] | None = None
    """``(n, 5)`` what missions of the engine's own say, in the order of ``worlds.MissionView``; None where there are none."""
    event: NDArray[np.bool_] | None = None
    """``(n,)`` whether the event that the task waits for happens: an engine's own word, or a learned head's. None where none waits for one."""


class Simulator(Protocol):
    """A batch of slots; slot numbers are 0 .. num_slots - 1."""

    num_slots: int
    frame_size: tuple[int, int]
    """(height, width) in pixels."""
    num_retrieved: int
    """k: remembered frames that a picture is predicted from, at most; 0 in engines."""

    @property
    def failure(self) -> str:
        """What it means here that a slot is lost and what to do about it, for messages; no full stop."""

    def start(self, slots: Sequence[int], starts: Sequence[Start], seeds: Sequence[int]) -> Views:
        """Begins a new episode in each of ``slots`` and shows its first frame.

        Args:
            slots: which slots, without repetition.
            starts: one for each.
            seeds: one for each; everything random in that episode of that slot comes from it.
        """

    def step(self, slots: Sequence[int], actions: NDArray[np.float32]) -> Views:
        """Advances ``slots`` by one env step each with ``actions (n, 9) float32``; the other slots are untouched."""

    def snapshot(self, slots: Sequence[int]) -> Any:
        """A copy of everything that decides the future of ``slots``, generators included."""

    def restore(self, slots: Sequence[int], snapshot: Any) -> None:
        """Puts a snapshot (of as many slots) back, also into other slots: that is how episodes are branched.

        Raises:
            NotImplementedError: where an engine cannot do it; the message says so.
        """

    def close(self) -> None:
        """Frees what is held; may be called twice."""
