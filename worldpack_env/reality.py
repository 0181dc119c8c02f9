"""Reality: a batch of real engines behind the simulator protocol."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from worldpack_env.simulator import Views
from worldpack_env.starts import Start
from worldpack_env.worlds import EpisodeLost, World, WorldView, make_world
from worldpack_model.episodes import happens
from worldpack_model.geometry import check_action

LOGGER = logging.getLogger(__name__)
T = TypeVar("T")
_Shown = tuple[WorldView, bool]
"""What an engine shows, and whether the event that is asked for happens in it."""


class Reality:
    """``num_slots`` engines of one kind, one for each slot.

    Engines that say so (``concurrent``) are started and stepped at the same time: they are programs of their own, and one that takes a tick's time
    to answer would keep all others waiting. A call ends when every engine has answered, so the order never matters.
    """

    def __init__(
        self,
        world: str,
        num_slots: int,
        *,
        frame_size: tuple[int, int] = (64, 64),
        mission: str | None = None,
        event: str | None = None,
        factory: Callable[..., World] = make_world,
    ) -> None:
        """Makes the engines.

        Args:
            world: name of the engine, e.g. ``voxel``.
            num_slots: number of engines.
            frame_size: (height, width) of their frames in pixels.
            mission: a mission of the engine's own that they play; None plays none.
            event: an event that the engine tells of each view, see ``worldpack_model.episodes.happens``; None asks for none.
            factory: makes an engine of a name, as ``worlds.make_world``.

        Raises:
            ValueError: if there is no such engine, mission or slot, or the engine tells no events.
            BackendUnavailable: if the engine cannot be used here.
        """
        if num_slots < 1:
            raise ValueError(f"num_slots is {num_slots}, expected at least 1.")
        self.num_slots, self.frame_size = num_slots, (int(frame_size[0]), int(frame_size[1]))
        self.name, self.num_retrieved = world, 0
        self.failure = f"the engine {world!r} lost them"
        self.worlds: list[World] = []
        self._event = event
        self._last: dict[int, _Shown] = {}
        self._threads: ThreadPoolExecutor | None = None
        try:
            for _ in range(num_slots):
                self.worlds.append(factory(world, frame_size=self.frame_size, **({} if mission is None else {"mission": mission})))
            if event is not None and getattr(self.worlds[0], "events", None) is None:
                raise ValueError(
                    f"The world {world!r} does not tell what happens in a view, so not whether {event!r} does; use 'voxel' or 'minecraft'."
                )
        except BaseException:
            self.close()  # engines may be processes: none stays behind when a later one cannot be had
            raise
        if num_slots > 1 and all(getattr(engine, "concurrent", False) for engine in self.worlds):
            self._threads = ThreadPoolExecutor(num_slots, "engine")

    def start(self, slots: Sequence[int], starts: Sequence[Start], seeds: Sequence[int]) -> Views:
        """Builds each start's world and stands the player where its context ends; engines use no ``seeds``.

        Raises:
            ValueError: if a start is for another engine.
        """
        work = []
        for slot, start, _ in zip(slots, starts, seeds, strict=True):
            if start.world != self.name:
                raise ValueError(f"The start is of the engine {start.world!r}, this is {self.name!r}; use starts of the same engine.")
            work.append(partial(self._begin, slot, start))
        shown = self._each(work)
        self._last.update(zip(slots, shown, strict=True))
        return self._join(shown)

    def step(self, slots: Sequence[int], actions: NDArray[np.float32]) -> Views:
        """Steps the engines of ``slots`` with ``actions (n, 9)``; one that loses its episode has failed and shows its last view."""
        shown = self._each([partial(self._step, slot, action) for slot, action in zip(slots, check_action(actions, "actions"), strict=True)])
        failed = np.array([one is None for one in shown], np.bool_)
        for slot, one in zip(slots, shown, strict=True):
            view, _ = last = self._last[slot] if one is None else one
            if one is None:  # a step that did not happen pays nothing
                last = (view if view.mission is None else view._replace(mission=view.mission._replace(reward=0.0)), False)
            self._last[slot] = last
        return replace(self._join([self._last[slot] for slot in slots]), failed=failed)

    def _begin(self, slot: int, start: Start) -> _Shown:
        """One engine's reset."""
        return self._told(slot, self.worlds[slot].reset(start.seed, start.poses[-1]))

    def _step(self, slot: int, action: NDArray[np.float32]) -> _Shown | None:
        """One engine's step; None where it lost its episode."""
        try:
            return self._told(slot, self.worlds[slot].step(action))
        except EpisodeLost as error:
            LOGGER.warning("Slot %d lost its episode: %s", slot, error)
            self.failure = f"the engine {self.name!r} lost them, last with: {str(error).rstrip('.')}"
            return None

    def _told(self, slot: int, view: WorldView) -> _Shown:
        """A view, and whether the event that is asked for happens in it."""
        return view, self._event is not None and happens(self._event, self._ability(slot, "events")())

    def _each(self, work: Sequence[Callable[[], T]]) -> list[T]:
        """What each engine's piece of work gives. An error is raised once no engine works any more, the first slot's first."""
        if self._threads is None:
            return [piece() for piece in work]
        waiting = [self._threads.submit(piece) for piece in work]
        wait(waiting)
        return [result.result() for result in waiting]

    def _join(self, shown: Sequence[_Shown]) -> Views:
        views = [view for view, _ in shown]
        missions = [view.mission for view in views if view.mission is not None]
        return Views(
            frames=np.stack([view.frame for view in views]),
            poses=np.stack([view.pose for view in views]),
            blocked=np.array([view.blocked for view in views], np.bool_),
            failed=np.zeros(len(views), np.bool_),
            retrieved=np.zeros((len(views), 0), np.int64),
            mission=np.array(missions, np.float64) if missions else None,
            event=None if self._event is None else np.array([event for _, event in shown], np.bool_),
        )

    def snapshot(self, slots: Sequence[int]) -> Any:
        """Copies of the engines' states.

        Raises:
            NotImplementedError: if the engine cannot copy its state.
        """
        return [self._ability(slot, "snapshot")() for slot in slots]

    def restore(self, slots: Sequence[int], snapshot: Any) -> None:
        """Puts copies back.

        Raises:
            NotImplementedError: if the engine cannot copy its state.
        """
        for slot, state in zip(slots, snapshot, strict=True):
            self._ability(slot, "restore")(state)

    def _ability(self, slot: int, name: str) -> Callable[..., Any]:
        ability: Callable[..., Any] | None = getattr(self.worlds[slot], name, None)
        if ability is None:
            raise NotImplementedError(
                f"The engine {self.name!r} cannot copy its state, so its episodes cannot be branched; use the imagined environment."
            )
        return ability

    def close(self) -> None:
        """Closes all engines; may be called twice."""
        for world in self.worlds:
            world.close()
        if self._threads is not None:
            self._threads.shutdown()  # last: an engine that is closed ends the step that waits for it
