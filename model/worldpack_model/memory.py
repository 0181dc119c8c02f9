"""CompressedMemory: what each slot remembers of its episode.

Legend: S slots, W columns, n the slots of one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from worldpack_model.config import MemoryConfig
from worldpack_model.geometry import wrap_degrees_torch
from worldpack_model.walking import STILL, momentum_of

STRETCH = 64
"""Keyframes whose positions share a box. They were kept one after the other, so they lie together."""


@dataclass(frozen=True)
class MemorySnapshot:
    """A copy of some slots' histories; independent of the memory it was taken from."""

    tensors: dict[str, torch.Tensor]
    counts: NDArray[np.int64]
    """``(n, 2)`` frames seen and keyframes held."""
    recent: int
    """Newest frames that the memory always keeps."""


class CompressedMemory:
    """A batch of per-slot histories of latents and poses.

    The newest ``recent`` frames of a slot always stay. A frame that leaves them becomes a keyframe if its pose is new (``MemoryConfig``), so the
    memory of a slot that walks in circles stops growing. Columns are allocated as they are needed, up to ``recent`` and ``capacity`` in whole
    stretches; all slots live in the same tensors, so one call serves any set of slots.

    Long histories cost no more than short ones: keyframes lie in stretches of ``STRETCH`` columns with a bounding box each, and :meth:`near` opens
    the nearest boxes only.

    Nothing is read back from a GPU on the way: what shapes and columns depend on is known on the host as well. Only how many frames were kept is
    not, until :meth:`settle` is told; :meth:`append` sees to that itself.
    """

    def __init__(
        self,
        config: MemoryConfig,
        *,
        num_slots: int,
        recent: int,
        latent_shape: tuple[int, int, int],
        device: torch.device | str = "cpu",
    ) -> None:
        if num_slots < 1:
            raise ValueError(f"num_slots is {num_slots}, expected at least 1.")
        self.config, self.num_slots, self.recent = config, num_slots, recent
        columns = recent + min(STRETCH, _whole_stretches(config.capacity))
        self.latents = torch.zeros((num_slots, columns, *latent_shape), dtype=torch.float16, device=device)
        """``(S, W, C, h, w)`` float16."""
        self.poses = torch.zeros((num_slots, columns, 5), dtype=torch.float64, device=device)
        """``(S, W, 5)``."""
        self.steps = torch.full((num_slots, columns), -1, dtype=torch.int64, device=device)
        """``(S, W)`` step number of the frame in a column, -1 where empty. The first ``recent`` columns are a ring of the newest."""
        self.imagined = torch.zeros((num_slots, columns), dtype=torch.bool, device=device)
        """``(S, W)``."""
        self.boxes = torch.full((num_slots, 1, 2, 3), torch.nan, dtype=torch.float64, device=device)
        """``(S, stretches, 2, 3)`` lowest and highest coordinates of the keyframes of a stretch; NaN where there are none."""
        self.length = torch.zeros(num_slots, dtype=torch.int64, device=device)
        """``(S,)`` frames seen since the episode began, kept or not."""
        self.keyframes = torch.zeros(num_slots, dtype=torch.int64, device=device)
        """``(S,)`` keyframes held."""
        self.motion = torch.zeros((num_slots, 3), dtype=torch.float64, device=device)
        """``(S, 3)`` way from the last frame but one to the last, world axes, blocks; zero in the beginning."""
        self.actions = torch.zeros((num_slots, 9), dtype=torch.float32, device=device)
        """``(S, 9)`` action that led to the last frame; zero in the beginning."""
        self.momentum = torch.tensor(STILL, dtype=torch.float64, device=device).repeat(num_slots, 1)
        """``(S, 5)`` of the body in the last frame, see :func:`worldpack_model.walking.walk`."""
        self._counts = np.zeros((num_slots, 2), np.int64)
        """``length`` and ``keyframes`` as the host knows them; -1 between :meth:`put` and :meth:`settle`."""

    def _index(self, slots: Sequence[int]) -> torch.Tensor:
        rows = [int(slot) for slot in slots]
        if rows and not 0 <= min(rows) <= max(rows) < self.num_slots:
            raise ValueError(f"Slots {rows} are not all within 0 .. {self.num_slots - 1}.")
        if len(set(rows)) != len(rows):
            raise ValueError(f"Slots {rows} name a slot twice.")
        return torch.as_tensor(rows, dtype=torch.int64, device=self.length.device)

    def _known(self, slots: Sequence[int]) -> NDArray[np.int64]:
        """``(n, 2)`` frames seen and keyframes held."""
        counts: NDArray[np.int64] = self._counts[list(slots)]
        if (counts < 0).any():
            raise RuntimeError("A slot was put() a frame and not settled; call settle() with what put() returned.")
        return counts

    def clear(self, slots: Sequence[int]) -> None:
        """Forgets everything in ``slots``."""
        index = self._index(slots)
        self.steps[index], self.imagined[index], self.boxes[index] = -1, False, torch.nan
        self.length[index], self.keyframes[index], self.motion[index], self.actions[index] = 0, 0, 0.0, 0.0
        self.momentum[index] = self.momentum.new_tensor(STILL)
        self._counts[list(slots)] = 0

    def append(self, slots: Sequence[int], latents: torch.Tensor, poses: torch.Tensor, actions: torch.Tensor, *, imagined: bool) -> None:
        """Adds the next frame of each of ``slots``.

        Args:
            slots: n slots.
            latents: ``(n, C, h, w)``.
            poses: ``(n, 5)``.
            actions: ``(n, 9)`` that led to the frames; zero where that is not known.
            imagined: whether the model made these frames.
        """
        self.settle(slots, self.put(slots, latents, poses, actions, imagined=imagined).cpu().numpy())

    def put(
        self,
        slots: Sequence[int],
        latents: torch.Tensor,
        poses: torch.Tensor,
        actions: torch.Tensor,
        *,
        imagined: bool,
        where: torch.Tensor | None = None,
        momentum: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As :meth:`append`, without waiting for the device; the slots may be used again after :meth:`settle`.

        Args:
            slots: n slots.
            latents: ``(n, C, h, w)``.
            poses: ``(n, 5)``.
            actions: ``(n, 9)``.
            imagined: whether the model made these frames.
            where: ``(n,) bool`` slots that really get their frame; None is all.
            momentum: ``(n, 5)`` of the bodies; None takes what their last steps tell.

        Returns:
            ``(n, 2) int64`` on the device, for :meth:`settle`.
        """
        index, known = self._index(slots), self._known(slots)
        where = torch.ones_like(index, dtype=torch.bool) if where is None else where
        length = self.length[index]
        column, before = length % self.recent, self.poses[index, (length - 1) % self.recent]
        motion = torch.where(length[:, None] > 0, poses[:, :3].to(torch.float64) - before[:, :3], 0.0)
        self.motion[index] = torch.where(where[:, None], motion, self.motion[index])
        self.actions[index] = torch.where(where[:, None], actions.to(torch.float32), self.actions[index])
        self.momentum[index] = torch.where(where[:, None], momentum_of(motion) if momentum is None else momentum, self.momentum[index])
        full = [i for i, count in enumerate(known) if count[0] >= self.recent]
        if full and self.config.capacity > 0:
            some = slice(None) if len(full) == len(known) else torch.as_tensor(full, device=index.device)
            self._keep(index[some], where[some], known[full, 1])
        values = (latents, poses, length, torch.full_like(where, imagined))
        for tensor, value in zip((self.latents, self.poses, self.steps, self.imagined), values, strict=True):
            _write(tensor, index, column, value, where)
        self.length[index] = length + where
        self._counts[list(slots)] = -1
        return torch.stack([self.length[index], self.keyframes[index]], dim=1)

    def settle(self, slots: Sequence[int], counts: NDArray[np.int64]) -> None:
        """Tells the host what :meth:`put` returned for ``slots``."""
        self._counts[list(slots)] = counts

    def _keep(self, index: torch.Tensor, where: torch.Tensor, held: NDArray[np.int64]) -> None:
        """Moves the oldest ring frame of slots ``index (n,)`` among the keyframes, where ``where (n,)`` says so and its pose is new.

        A real frame also takes the place of an imagined one of its pose. ``held (n,)`` are their keyframes by now.
        """
        ring = self.length[index] % self.recent
        pose = self.poses[index, ring]  # (n, 5)
        row, near = index[:, None], self._near(index, pose, int(held.max()))[:, self.recent :]
        others = self.poses[row, near]
        # coordinate by coordinate: torch adds up rows of three slowly
        x, y, z, yaw, pitch = (others - pose[:, None]).unbind(-1)
        yaw, pitch = wrap_degrees_torch(yaw), wrap_degrees_torch(pitch)
        close = (x * x + y * y + z * z < self.config.min_distance**2) & (yaw * yaw + pitch * pitch < self.config.min_angle**2)
        same = (self.steps[row, near] >= 0) & close
        fresh = where & ~same.any(dim=1)
        made = self.imagined[row, near]
        better = where & ~fresh & ~self.imagined[index, ring] & ~(same & ~made).any(dim=1)
        if int(held.max()) >= self.latents.shape[1] - self.recent:
            self._grow()
        count = self.keyframes[index]
        full = count >= self.config.capacity
        column = self.recent + count
        if int(held.max()) >= self.config.capacity:  # imagined frames go first, then the oldest
            kept = slice(self.recent, self.recent + self.config.capacity)
            steps, made = self.steps[index, kept], self.imagined[index, kept]
            column = torch.where(full, self.recent + (steps + (~made).long() * (1 << 40)).argmin(dim=1), column)
        if same.shape[1]:
            column = torch.where(better, near.gather(1, same.long().argmax(dim=1, keepdim=True))[:, 0], column)
        for tensor in (self.latents, self.poses, self.steps, self.imagined):
            _write(tensor, index, column, tensor[index, ring], fresh | better)
        self.keyframes[index] = count + (fresh & ~full).long()
        stretch = (column - self.recent) // STRETCH
        inside = self.recent + stretch[:, None] * STRETCH + torch.arange(STRETCH, device=column.device)
        place = self.poses[index[:, None], inside, :3]
        there = (self.steps[index[:, None], inside] >= 0)[..., None]
        low, high = place.masked_fill(~there, torch.inf).amin(1), place.masked_fill(~there, -torch.inf).amax(1)
        _write(self.boxes, index, stretch, torch.stack([low, high], dim=1), fresh | better)

    def _grow(self) -> None:
        columns = min(self.recent + _whole_stretches(self.config.capacity), self.recent + 2 * (self.latents.shape[1] - self.recent))
        for name in ("latents", "poses", "steps", "imagined"):
            old: torch.Tensor = getattr(self, name)
            if columns > old.shape[1]:
                more = old.new_full((old.shape[0], columns - old.shape[1], *old.shape[2:]), -1 if name == "steps" else 0)
                setattr(self, name, torch.cat([old, more], dim=1))
        stretches = (columns - self.recent) // STRETCH
        more = self.boxes.new_full((self.num_slots, stretches - self.boxes.shape[1], 2, 3), torch.nan)
        self.boxes = torch.cat([self.boxes, more], dim=1)

    @property
    def most_near(self) -> int:
        """How many columns :meth:`near` gives at most: ``recent + nearby``, rounded up to whole stretches."""
        return self.recent + _whole_stretches(self.config.nearby)

    def near(self, slots: Sequence[int], poses: torch.Tensor) -> torch.Tensor:
        """Columns to look at for predictions of ``slots`` around ``poses``: the newest frames, and keyframes.

        All keyframes if they are at most ``config.nearby``; else those of the stretches whose boxes are nearest.

        Args:
            slots: n slots.
            poses: ``(n, 5)``.

        Returns:
            ``(n, k) int64``, k at most :attr:`most_near`, no column twice; empty ones have step -1.
        """
        return self._near(self._index(slots), poses, int(self._known(slots)[:, 1].max()))

    def _near(self, index: torch.Tensor, poses: torch.Tensor, held: int) -> torch.Tensor:
        if held <= self.config.nearby:
            return torch.arange(self.recent + held, device=index.device).expand(len(index), -1)
        boxes = self.boxes[index, : _whole_stretches(held) // STRETCH]
        place = poses[:, None, :3].to(boxes)
        gap = torch.maximum(boxes[:, :, 0] - place, place - boxes[:, :, 1]).clamp_min(0).square()
        # a place within many boxes is most likely near what lies around the middle of the smallest
        middle = (0.5 * (boxes[:, :, 0] + boxes[:, :, 1]) - place).square()
        x, y, z = (gap + 1e-3 * middle).unbind(-1)
        far = (x + y + z).nan_to_num(torch.inf)
        wanted = min(_whole_stretches(self.config.nearby) // STRETCH, far.shape[1])
        stretch = far.topk(wanted, dim=1, largest=False).indices
        columns = (stretch[:, :, None] * STRETCH + torch.arange(STRETCH, device=index.device)).flatten(1)
        newest = torch.arange(self.recent, device=index.device).expand(len(index), -1)
        return torch.cat([newest, self.recent + columns], dim=1)

    def newest_column(self, slots: Sequence[int]) -> torch.Tensor:
        """``(n,)`` column of the newest frame of each slot.

        Raises:
            RuntimeError: if a slot has no frame yet.
        """
        index = self._index(slots)
        if (self._known(slots)[:, 0] == 0).any():
            raise RuntimeError("A slot has no frames; call remember() with its starting frames before predict().")
        return (self.length[index] - 1) % self.recent

    def snapshot(self, slots: Sequence[int]) -> MemorySnapshot:
        """A copy of ``slots``."""
        index = self._index(slots)
        return MemorySnapshot({name: getattr(self, name)[index].clone() for name in self._names()}, self._known(slots), self.recent)

    def restore(self, slots: Sequence[int], snapshot: MemorySnapshot) -> None:
        """Puts a snapshot of as many slots into ``slots``.

        Raises:
            ValueError: if it is of another number of slots, of a memory of another form, or holds more than this one's capacity.
        """
        index = self._index(slots)
        if len(index) != len(snapshot.tensors["length"]):
            raise ValueError(f"The snapshot holds {len(snapshot.tensors['length'])} slots, {len(index)} were asked for.")
        form, own = (snapshot.recent, tuple(snapshot.tensors["latents"].shape[2:])), (self.recent, tuple(self.latents.shape[2:]))
        if form != own:
            raise ValueError(f"The snapshot is of a memory with {form[0]} newest frames of {form[1]}, this one has {own[0]} of {own[1]}.")
        most = int(snapshot.counts[:, 1].max(initial=0))
        if most > self.config.capacity:
            raise ValueError(f"The snapshot holds {most} keyframes, this memory at most {self.config.capacity}; make it with a greater capacity.")
        while self.steps.shape[1] < min(snapshot.tensors["steps"].shape[1], self.recent + _whole_stretches(self.config.capacity)):
            self._grow()
        self.clear(slots)
        for name in self._names():
            saved, mine = snapshot.tensors[name], getattr(self, name)
            if saved.ndim > 1 and name not in ("motion", "actions", "momentum"):
                width = min(saved.shape[1], mine.shape[1])  # beyond the capacity there is nothing
                mine[index, :width] = saved[:, :width]
            else:
                mine[index] = saved
        self._counts[list(slots)] = snapshot.counts

    @staticmethod
    def _names() -> tuple[str, ...]:
        return ("latents", "poses", "steps", "imagined", "boxes", "length", "keyframes", "motion", "actions", "momentum")


def _write(tensor: torch.Tensor, index: torch.Tensor, column: torch.Tensor, value: torch.Tensor, where: torch.Tensor) -> None:
    """``tensor[index, column] = value`` where ``where (n,) bool``: what stays is written over itself, since a mask as an index would wait."""
    old = tensor[index, column]
    tensor[index, column] = torch.where(where.reshape(-1, *[1] * (old.ndim - 1)), value.to(old.dtype), old)


def _whole_stretches(keyframes: int) -> int:
    """Columns of the stretches that hold so many keyframes."""
    return -(-keyframes // STRETCH) * STRETCH
