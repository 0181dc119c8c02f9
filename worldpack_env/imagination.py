"""Imagination: the world model as a simulator. The only place where episodes are imagined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from worldpack_env.simulator import Views
from worldpack_env.starts import Start
from worldpack_model.config import lookup
from worldpack_model.motion import Choice

if TYPE_CHECKING:
    from worldpack_model import WorldPack
    from worldpack_model.config import Precision
    from worldpack_model.events import EventHeads


@dataclass(frozen=True)
class ImaginationSnapshot:
    """A copy of some imagined episodes; opaque to users."""

    memory: Any
    generators: tuple[torch.Tensor, ...]
    frames: NDArray[np.uint8] | torch.Tensor
    poses: NDArray[np.float64]


class Imagination:
    """A world model, its compressed memory, and one generator for each slot.

    The generators live on the CPU on any device, so the noise of an episode depends on its seed alone.
    """

    def __init__(
        self,
        model: WorldPack,
        num_slots: int,
        *,
        evaluations: int | None = None,
        motion: Choice = "drawn",
        on_device: bool = False,
        event: str | None = None,
        heads: EventHeads | None = None,
    ) -> None:
        """Makes ``num_slots`` empty slots.

        Args:
            model: predicts the frames; shared, never changed.
            num_slots: episodes at a time.
            evaluations: network evaluations per env step; None takes the model's default.
            motion: ``drawn`` or ``likeliest``, see :meth:`WorldPack.predict`.
            on_device: show frames as tensors on the model's device, where they are made.
            event: an event that ``heads`` tell of each frame; None asks for none.
            heads: learned heads, for frames of the model's size.

        Raises:
            ValueError: if there is no slot or no evaluation, or no head for the event and these frames.
        """
        if num_slots < 1:
            raise ValueError(f"num_slots is {num_slots}, expected at least 1.")
        lookup(dict.fromkeys(get_args(Choice)), motion, "motion")
        if evaluations is not None and evaluations < 1:
            raise ValueError(f"evaluations is {evaluations}, expected at least 1, or None for the model's default.")
        self.model, self.num_slots, self.evaluations, self.motion = model, num_slots, evaluations, motion
        height, width = model.config.frame_size
        self.frame_size = (int(height), int(width))
        self.num_retrieved = int(model.config.packing.retrieved)
        self.failure = "the world model predicted frames that are not finite: check it with `worldpack eval-model` before training in it"
        self._tell: Callable[[Any], NDArray[np.bool_]] | None = None
        if event is not None:
            if heads is None:
                raise ValueError(f"No frame of an imagined world says whether {event!r} happens; give heads that tell it.")
            if heads.config.frame_size != self.frame_size:
                raise ValueError(f"The event heads are for frames of {heads.config.frame_size} pixels, the world model's have {self.frame_size}.")
            number, chances = heads.number_of(event), heads.chances
            self._tell = lambda frames: chances(frames)[:, number] > 0.5
        self.memory = model.new_memory(num_slots)
        self._generators = [torch.Generator() for _ in range(num_slots)]
        self.on_device = on_device
        shape = (num_slots, *self.frame_size, 3)
        self._frames: Any = torch.zeros(shape, dtype=torch.uint8, device=model.device) if on_device else np.zeros(shape, np.uint8)
        self._poses = np.zeros((num_slots, 5))

    def start(self, slots: Sequence[int], starts: Sequence[Start], seeds: Sequence[int]) -> Views:
        """Forgets ``slots``, remembers each start's context, and shows its last frame."""
        rows = list(slots)
        self.memory.clear(rows)
        by_length: dict[int, list[int]] = {}
        for i, (slot, start, seed) in enumerate(zip(rows, starts, seeds, strict=True)):
            self._generators[slot].manual_seed(seed)
            self._frames[slot] = torch.from_numpy(start.frames[-1]).to(self.model.device) if self.on_device else start.frames[-1]
            self._poses[slot] = start.poses[-1]
            by_length.setdefault(len(start.frames), []).append(i)
        for group in by_length.values():  # contexts of one length are encoded together
            self.model.remember(
                self.memory,
                [rows[i] for i in group],
                np.stack([starts[i].frames for i in group]),
                np.stack([starts[i].poses for i in group]),
                np.stack([starts[i].actions for i in group]),
            )
        n, frames = len(rows), self._frames[rows]
        return Views(
            frames=frames,
            poses=self._poses[rows],
            blocked=np.zeros(n, np.bool_),
            failed=np.zeros(n, np.bool_),
            retrieved=np.full((n, self.num_retrieved), -1, np.int64),
            event=None if self._tell is None else self._tell(frames),
        )

    def step(self, slots: Sequence[int], actions: NDArray[np.float32]) -> Views:
        """Imagines the next frame of each of ``slots``, given ``actions (n, 9)``.

        A slot whose prediction is not finite keeps its last good frame and pose and is marked as failed.
        """
        rows = list(slots)
        generators = [self._generators[slot] for slot in rows]
        predicted = self.model.predict(
            self.memory, rows, actions, generators, evaluations=self.evaluations, motion=self.motion, on_device=self.on_device
        )
        good = np.asarray(predicted.finite, np.bool_)
        fine = np.flatnonzero(good).tolist()
        kept = [rows[i] for i in fine]
        self._frames[kept], self._poses[kept] = predicted.frames[fine], predicted.poses[fine]
        frames = self._frames[rows]
        return Views(
            frames=frames,
            poses=self._poses[rows],
            blocked=predicted.blocked & good,
            failed=~good,
            retrieved=predicted.retrieved,
            event=None if self._tell is None else self._tell(frames),
        )

    def snapshot(self, slots: Sequence[int]) -> ImaginationSnapshot:
        """A copy of everything that decides the future of ``slots``: memory, generators, last frames."""
        rows = list(slots)
        return ImaginationSnapshot(
            memory=self.memory.snapshot(rows),
            generators=tuple(self._generators[slot].get_state() for slot in rows),
            frames=self._frames[rows],
            poses=self._poses[rows],
        )

    def restore(self, slots: Sequence[int], snapshot: ImaginationSnapshot) -> None:
        """Puts a snapshot of as many slots back, also into other slots."""
        rows = list(slots)
        self.memory.restore(rows, snapshot.memory)
        for slot, state in zip(rows, snapshot.generators, strict=True):
            self._generators[slot].set_state(state)
        self._frames[rows], self._poses[rows] = snapshot.frames, snapshot.poses

    def close(self) -> None:
        """Forgets all episodes; may be called twice. The model stays with whoever owns it."""
        self.memory.clear(range(self.num_slots))


def load_heads(heads: str | PathLike[str] | EventHeads, *, device: str = "auto") -> EventHeads:
    """Event heads by the name of shipped ones or the path of a folder; an object passes through."""
    if not isinstance(heads, str | PathLike):
        return heads
    from worldpack_model.events import EventHeads

    return EventHeads.from_pretrained(fspath(heads), device=device)


def load_world_model(model: str | PathLike[str] | WorldPack, *, device: str = "auto", precision: Precision = "auto") -> WorldPack:
    """A world model by the name of a shipped one or the path of a checkpoint; an object passes through.

    Args:
        model: name, path, or a loaded model.
        device: where to load it, ``auto`` takes a GPU where there is one; ignored for a loaded model.
        precision: ``float32``, ``bfloat16``, or ``auto``, which takes bfloat16 where the device has units for it; ignored for a loaded model.
    """
    if not isinstance(model, str | PathLike):
        return model
    from worldpack_model import WorldPack

    return WorldPack.from_pretrained(fspath(model), device=device, precision=precision)
