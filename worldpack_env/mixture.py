"""Imagined and real episodes side by side in one batch: for agents that train on both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldpack_env.simulator import Simulator, Views
from worldpack_env.starts import Start


class Mixture:
    """Slots of several simulators, one simulator's after the other's; what is above cannot tell them apart."""

    def __init__(self, parts: Sequence[Simulator]) -> None:
        """Joins simulators.

        Args:
            parts: at least one; closed with the mixture.

        Raises:
            ValueError: if their frames differ in size.
        """
        sizes = {tuple(part.frame_size) for part in parts}
        if len(sizes) != 1:
            raise ValueError(f"Simulators of one batch show frames of one size, got {sorted(sizes) or 'no simulators'}.")
        self.parts = tuple(parts)
        self.frame_size = parts[0].frame_size
        self.num_slots = sum(part.num_slots for part in parts)
        self.num_retrieved = max(part.num_retrieved for part in parts)
        self._first = np.cumsum([0, *(part.num_slots for part in parts)])

    @property
    def failure(self) -> str:
        """What it means that a slot is lost, in each of the simulators."""
        return "; or ".join(part.failure for part in self.parts)

    def start(self, slots: Sequence[int], starts: Sequence[Start], seeds: Sequence[int]) -> Views:
        """Begins a new episode in each of ``slots``."""
        return self._each(slots, lambda part, own, rows: part.start(own, [starts[i] for i in rows], [seeds[i] for i in rows]))

    def step(self, slots: Sequence[int], actions: NDArray[np.float32]) -> Views:
        """Advances ``slots`` with ``actions (n, 9)``."""
        return self._each(slots, lambda part, own, rows: part.step(own, actions[rows]))

    def _each(self, slots: Sequence[int], ask: Callable[[Simulator, list[int], list[int]], Views]) -> Views:
        """Asks every simulator about its own slots, and puts the answers in the order of ``slots``."""
        answers = [(rows, ask(part, own, rows)) for part, own, rows in self._split(slots)]
        order = np.argsort(np.concatenate([rows for rows, _ in answers]), kind="stable")
        views = [views for _, views in answers]
        events = [v.event for v in views if v.event is not None]
        # as wide whoever is asked: engines' slots may begin alone
        padded = [np.pad(v.retrieved, ((0, 0), (0, self.num_retrieved - v.retrieved.shape[1])), constant_values=-1) for v in views]
        return Views(
            frames=np.concatenate([np.asarray(v.frames) for v in views])[order],
            poses=np.concatenate([v.poses for v in views])[order],
            blocked=np.concatenate([v.blocked for v in views])[order],
            failed=np.concatenate([v.failed for v in views])[order],
            retrieved=np.concatenate(padded)[order],
            event=np.concatenate(events)[order] if len(events) == len(views) else None,
        )

    def _split(self, slots: Sequence[int]) -> list[tuple[Simulator, list[int], list[int]]]:
        """For every simulator that is asked: it, its own slot numbers, and their places in ``slots``."""
        owner = np.searchsorted(self._first, slots, side="right") - 1
        found = []
        for number, part in enumerate(self.parts):
            rows = np.flatnonzero(owner == number).tolist()
            if rows:
                found.append((part, [int(slots[i] - self._first[number]) for i in rows], rows))
        return found

    def snapshot(self, slots: Sequence[int]) -> Any:
        """Copies of the slots, each by its own simulator.

        Raises:
            NotImplementedError: where an engine cannot copy its state.
        """
        kept: list[Any] = [None] * len(slots)
        for part, own, rows in self._split(slots):
            for slot, row in zip(own, rows, strict=True):
                kept[row] = (self.parts.index(part), part.snapshot([slot]))
        return kept

    def restore(self, slots: Sequence[int], snapshot: Any) -> None:
        """Puts copies back.

        Raises:
            ValueError: if an imagined episode shall go on in an engine or the other way round.
            NotImplementedError: where an engine cannot copy its state.
        """
        for part, own, rows in self._split(slots):
            for slot, row in zip(own, rows, strict=True):
                number, copy = snapshot[row]
                if self.parts[number] is not part:
                    raise ValueError(f"Slot {slots[row]} is of another simulator than the copy; an episode stays imagined or real.")
                part.restore([slot], copy)

    def close(self) -> None:
        """Closes all simulators; may be called twice."""
        for part in self.parts:
            part.close()
