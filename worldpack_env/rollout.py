"""Plays episodes in the slots of a simulator: the one episode loop, under the single and the vector environment.

A :class:`Rollout` joins a simulator, a task, a bank of starts, and the goal's part of the observation. It knows no autoreset and owns no
randomness: whoever drives it passes one generator for each slot that begins. Because both environments draw through :func:`draw_episode`
and begin through :meth:`Rollout.begin`, slot ``i`` of a vector environment seeded ``s`` plays what a single one seeded ``s + i`` plays.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from worldpack_env.goals import GOAL_OBS, GoalView
from worldpack_env.rendering import History
from worldpack_env.simulator import Simulator, Views
from worldpack_env.starts import Start, StartBank
from worldpack_env.tasks import LOOP_RANGES, Task, TaskState, default_step_limit, spl

if TYPE_CHECKING:
    import torch

LOGGER = logging.getLogger(__name__)

FAILURES_TOLERATED: Final = 20
"""Failed slots before their share is looked at."""
FAILURE_SHARE: Final = 0.5
"""A greater share of failed episodes than this is an error: no agent can learn from such a simulator."""

T = TypeVar("T")
Observation = dict[str, Any]
"""Arrays; tensors on the rollout's device where it has one."""


class SimulatorFailedError(RuntimeError):
    """So many episodes were lost that going on makes no sense."""


class Outcome(NamedTuple):
    """What one step gave, for the ``n`` slots that stepped."""

    reward: NDArray[np.float64]
    """``(n,)``."""
    terminated: NDArray[np.bool_]
    """``(n,)`` the task is over."""
    truncated: NDArray[np.bool_]
    """``(n,)`` the time is over, or the simulator lost the slot."""


@dataclass(frozen=True)
class RolloutSnapshot:
    """A copy of some slots of a rollout; opaque to users."""

    simulator: Any
    arrays: dict[str, Any]
    state: TaskState
    starts: tuple[Start, ...]
    histories: tuple[History, ...] | None


def draw_episode(rng: np.random.Generator, count: int, odds: NDArray[np.float64] | None = None) -> tuple[int, int]:
    """Draws what a new episode is made of: (number of its start, seed of everything random in it).

    Both are drawn even where a start is given, so that giving one does not shift the stream. ``odds (count,)`` say how likely each start is, relative
    to others; None draws all alike.
    """
    index = int(rng.integers(count)) if odds is None else int(np.searchsorted(odds.cumsum(), rng.random() * odds.sum(), side="right"))
    return index, int(rng.integers(2**63 - 1))


def read_options(options: Mapping[str, Any] | None, *, num_slots: int, bank: StartBank) -> dict[int, int | Start]:
    """The starts that ``reset(options=...)`` asks for, as slot -> start or number of the start.

    ``start_index`` is a number, ``start`` a :class:`Start`; in a vector environment also a list with one entry (or None) for each slot.

    Raises:
        ValueError: if an option is unknown, has a wrong length or type, or names a start that there is not.
    """
    asked = {key: value for key, value in (options or {}).items() if key != "reset_mask"}
    for key in asked:
        if key not in ("start_index", "start"):
            raise ValueError(f"reset() has no option {key!r}; known: start_index, start, and reset_mask in vector environments.")
    if len(asked) > 1:
        raise ValueError("reset() got both options start_index and start; give one of them.")
    forced: dict[int, int | Start] = {}
    for key, value in asked.items():
        values = list(value) if isinstance(value, (list, tuple, np.ndarray)) else [value] * num_slots
        if len(values) != num_slots:
            raise ValueError(f"options[{key!r}] has {len(values)} entries, expected one for each of {num_slots} slots.")
        for slot, entry in enumerate(values):
            if entry is None:
                continue
            if key == "start":
                if not isinstance(entry, Start):
                    raise ValueError(f"options['start'] is {type(entry).__name__}, expected a Start.")
                forced[slot] = entry
            elif isinstance(entry, (bool, np.bool_)) or not isinstance(entry, (int, np.integer)) or not 0 <= entry < len(bank):
                raise ValueError(f"options['start_index'] is {entry!r}, expected a number from 0 to {len(bank) - 1}.")
            else:
                forced[slot] = int(entry)
    return forced


class Rollout:
    """Episodes in the slots of a simulator; see the module's text."""

    def __init__(
        self,
        simulator: Simulator,
        task: Task,
        bank: StartBank,
        *,
        goal_obs: str | None = None,
        max_episode_steps: int | None = None,
        keep_history: bool = False,
        owns_bank: bool = False,
        device: torch.device | None = None,
    ) -> None:
        """Joins the parts.

        Args:
            simulator: shows the worlds; closed with the rollout.
            task: goals and rewards.
            bank: where episodes begin.
            goal_obs: ``compass``, ``vector``, ``image`` or ``none``, if the task has it; None takes the task's default.
            max_episode_steps: env steps after which an episode is truncated; None takes ``tasks.default_step_limit`` of each start's own loop and
                range.
            keep_history: keep the shown frames of the running episodes, for pictures.
            owns_bank: close the bank with the rollout.
            device: observations are torch tensors there; None gives NumPy arrays.

        Raises:
            ValueError: if the parts do not fit.
        """
        self._limit_given = max_episode_steps is not None
        if max_episode_steps is None:
            max_episode_steps = default_step_limit(task.loop, nav_range=bank.nav_range, mode=bank.mode)
        if max_episode_steps < 1:
            raise ValueError(f"max_episode_steps is {max_episode_steps}, expected at least 1.")
        self.simulator, self.task, self.max_episode_steps = simulator, task, int(max_episode_steps)
        self.num_slots = simulator.num_slots
        if goal_obs is not None and goal_obs in GOAL_OBS and goal_obs not in task.goal_obs:
            raise ValueError(f"The task {task.name} has no goal observation {goal_obs!r}, expected {' or '.join(map(repr, task.goal_obs))}.")
        self.goal = GoalView(goal_obs or task.goal_obs[0], simulator.frame_size)
        self.bank = self._checked(bank)
        self._odds: NDArray[np.float64] | None = None
        self._owned = bank if owns_bank else None
        self.keeps_history = keep_history
        height, width = simulator.frame_size
        self.observation_space = spaces.Dict({"image": spaces.Box(0, 255, (height, width, 3), np.uint8), **self.goal.spaces})
        n = self.num_slots
        self.device = device
        self._now: dict[str, Any] = {
            "image": self._shown(np.zeros((n, height, width, 3), np.uint8)),
            "pose": np.zeros((n, 5)),
            "blocked": np.zeros(n, np.bool_),
            "failed": np.zeros(n, np.bool_),
            "success": np.zeros(n, np.bool_),
            "walked": np.zeros(n),
            "elapsed": np.zeros(n, np.int64),
            "limit": np.zeros(n, np.int64),
            "start_index": np.full(n, -1, np.int64),
            "shortest": np.zeros(n),
            "retrieved": np.full((n, simulator.num_retrieved), -1, np.int64),
        }
        self._state: TaskState | None = None
        self._starts: list[Start | None] = [None] * n
        self._histories: list[History | None] | None = [None] * n if keep_history else None
        self._episodes = self._failures = 0

    def set_bank(self, bank: StartBank) -> None:
        """Takes the starts of new episodes from ``bank`` from now on; running episodes go on.

        Raises:
            ValueError: if the bank is for another task or frame size.
        """
        self.bank, self._odds = self._checked(bank), None

    def set_odds(self, odds: ArrayLike | None) -> None:
        """How likely new episodes begin at each start of the bank, from now on.

        Args:
            odds: ``(len(bank),)`` relative to each other; None makes all alike.

        Raises:
            ValueError: if they are not as many numbers as starts, none below 0 and one above it.
        """
        if odds is None:
            self._odds = None
            return
        given = np.asarray(odds, np.float64)
        if given.shape != (len(self.bank),) or not np.isfinite(given).all() or (given < 0).any() or not given.sum() > 0:
            raise ValueError(f"odds are {given.shape} numbers with sum {given.sum():g}, expected ({len(self.bank)},), none below 0 and not all 0.")
        self._odds = given

    def _checked(self, bank: StartBank) -> StartBank:
        if bank.loop != self.task.loop:
            raise ValueError(f"The starts are for {bank.loop}, the task is {self.task.loop}; build them with loop={self.task.loop!r}.")
        size = self.simulator.frame_size
        if tuple(bank.frame_size) != tuple(size):
            raise ValueError(f"The starts have frames of {bank.frame_size} pixels, expected {size}; build them with frame_size={size}.")
        return bank

    # ------------------------------------------------------------------------------------------------------------------ playing

    def begin(self, slots: Sequence[int], rngs: Sequence[np.random.Generator], forced: Mapping[int, int | Start] | None = None) -> None:
        """Begins a new episode in each of ``slots``.

        Args:
            slots: which slots, without repetition.
            rngs: one generator for each; moves on by one draw of :func:`draw_episode`.
            forced: slot -> start or number of the start it shall begin at.

        Raises:
            ValueError: if a forced start does not fit.
        """
        forced = forced or {}
        chosen: list[Start] = []
        indices, seeds = [], []
        for slot, rng in zip(slots, rngs, strict=True):
            index, seed = draw_episode(rng, len(self.bank), self._odds)
            given = forced.get(slot, index)
            if isinstance(given, Start):
                if given.frame_size != tuple(self.simulator.frame_size):
                    raise ValueError(f"The start has frames of {given.frame_size} pixels, expected {self.simulator.frame_size}.")
                chosen.append(given)
                indices.append(-1)
            else:
                chosen.append(self.bank[given])
                indices.append(given)
            seeds.append(seed)
        state = self.task.begin(chosen)
        views = self.simulator.start(slots, chosen, seeds)
        state.hear(views.mission, views.event)
        rows = list(slots)
        now = self._now
        self._allocate(state)
        self._show(rows, views)
        now["success"][rows], now["walked"][rows], now["elapsed"][rows] = False, 0.0, 0
        now["start_index"][rows], now["shortest"][rows] = indices, [self.task.shortest(start) for start in chosen]
        now["limit"][rows] = [self._limit(start) for start in chosen]
        _some(self._state).put(rows, state)
        for i, slot in enumerate(rows):
            self._starts[slot] = chosen[i]
            if self._histories is not None:
                self._histories[slot] = History.begin(chosen[i], _on_host(now["image"][slot]))
        self._episodes += len(rows)

    def _limit(self, start: Start) -> int:
        """Steps that an episode from ``start`` may take."""
        if self._limit_given:
            return self.max_episode_steps
        loop = {len(name): name for name in LOOP_RANGES}[len(start.waypoints)]
        return default_step_limit(loop, nav_range=start.nav_range, mode=start.mode)

    def _allocate(self, like: TaskState) -> None:
        """Makes the state, whose form only the first starts tell."""
        if self._state is None:
            self._state = TaskState.empty(self.num_slots, like)

    def advance(self, slots: Sequence[int], actions: NDArray[np.float32]) -> Outcome:
        """Steps ``slots`` with action vectors ``(n, 9)``.

        Raises:
            SimulatorFailedError: if too large a share of all episodes was lost.
        """
        rows = list(slots)
        now = self._now
        before = now["pose"][rows]
        views = self.simulator.step(slots, actions)
        self._show(rows, views)
        poses = now["pose"][rows]
        state = _some(self._state).take(rows)
        state.hear(views.mission, views.event)
        state, step = self.task.step(state, poses)
        _some(self._state).put(rows, state)
        now["success"][rows] = step.success
        now["walked"][rows] += np.hypot(poses[:, 0] - before[:, 0], poses[:, 2] - before[:, 2])
        now["elapsed"][rows] += 1
        if self._histories is not None:
            for slot in rows:
                _some(self._histories[slot]).add(_on_host(now["image"][slot]), now["pose"][slot])
        failed = now["failed"][rows]
        if failed.any():
            self._count_failures([rows[i] for i in np.flatnonzero(failed)])
        # A lost slot shows its last good frame and pose, so the task sees an agent that stood still.
        truncated = ((now["elapsed"][rows] >= now["limit"][rows]) & ~step.terminated) | failed
        return Outcome(step.reward, step.terminated, truncated)

    def _show(self, rows: list[int], views: Views) -> None:
        now = self._now
        now["image"][rows], now["pose"][rows], now["blocked"][rows] = self._shown(views.frames), views.poses, views.blocked
        now["failed"][rows], now["retrieved"][rows] = views.failed, views.retrieved

    def _shown(self, array: Any) -> Any:
        """An array of an observation in the form that is given out."""
        if self.device is None:
            return array
        import torch

        return torch.as_tensor(array, device=self.device)

    def _count_failures(self, slots: list[int]) -> None:
        self._failures += len(slots)
        LOGGER.warning("The simulator lost slots %s; %d of %d episodes so far (%s).", slots, self._failures, self._episodes, self.simulator.failure)
        if self._failures >= FAILURES_TOLERATED and self._failures > FAILURE_SHARE * self._episodes:
            raise SimulatorFailedError(
                f"{self._failures} of {self._episodes} episodes were lost, more than can be learned from: {self.simulator.failure}."
            )

    # ------------------------------------------------------------------------------------------------------------------ showing

    def observe(self, slots: Sequence[int]) -> Observation:
        """Observation of ``slots``, as new arrays (or tensors) with a leading axis n."""
        rows = list(slots)
        starts = [_some(self._starts[slot]) for slot in rows]
        goal = self.goal.observe(_some(self._state).take(rows), self._now["pose"][rows], starts)
        return {"image": self._now["image"][rows], **{key: self._shown(value) for key, value in goal.items()}}

    def context(self, slot: int) -> Observation:
        """What an agent would have seen before the episode that just began in ``slot``, oldest first: leading axis ``k - 1``.

        The frames of its start but the last, which is the first observation; the goal is the episode's first one, as it lies from each pose.
        """
        start = _some(self._starts[slot])
        before = len(start.frames) - 1
        if before:
            goal = self.goal.observe(_some(self._state).take([slot] * before), start.poses[:-1], [start] * before)
        else:
            goal = {key: np.zeros((0, *(space.shape or ())), space.dtype) for key, space in self.goal.spaces.items()}
        return {"image": start.frames[:-1], **goal}

    def info(self, slots: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Facts about ``slots``, as new arrays with a leading axis n.

        ``pose`` (n, 5); ``blocked``; ``is_success``; ``distance`` to the current goal in blocks over ground; ``subgoal``, the number of
        goals reached (in order; a ``turn`` start counts the outbound ones); ``path_length`` walked so far and ``shortest`` way in blocks;
        ``spl``; ``retrieved`` (n, k), step numbers of the frames behind the picture, -1 unused; ``start_index``, -1 for a given start.
        """
        rows = list(slots)
        now, state = self._now, _some(self._state)
        success, shortest, walked = now["success"][rows], now["shortest"][rows], now["walked"][rows]
        return {
            "pose": now["pose"][rows],
            "blocked": now["blocked"][rows],
            "is_success": success,
            "distance": state.distance[rows],
            "subgoal": state.subgoal[rows],
            "path_length": walked,
            "shortest": shortest,
            "spl": spl(success, shortest, walked),
            "retrieved": now["retrieved"][rows],
            "start_index": now["start_index"][rows],
        }

    def failed(self, slots: Sequence[int]) -> NDArray[np.bool_]:
        """``(n,)`` True where the simulator lost the slot in its last step."""
        lost: NDArray[np.bool_] = self._now["failed"][list(slots)]
        return lost

    def picture(self, slot: int) -> NDArray[np.uint8]:
        """The rendered picture ``(h, w, 3) uint8`` of a slot; needs ``keep_history``."""
        from worldpack_env.rendering import compose

        history, now, state = _some(_some(self._histories)[slot]), self._now, _some(self._state).take([slot])
        return compose(
            frame=_on_host(now["image"][slot]),
            pose=now["pose"][slot],
            history=history,
            start=_some(self._starts[slot]),
            subgoal=int(state.subgoal[0]),
            distance=float(state.distance[0]),
            retrieved=now["retrieved"][slot],
            title=self.task.name,
            step=int(now["elapsed"][slot]),
            limit=int(now["limit"][slot]),
            aim=self.task.standing(state),
            compass=None if state.compass is None else float(state.compass[0]),
        )

    # ------------------------------------------------------------------------------------------------------------------ branching

    def snapshot(self, slots: Sequence[int]) -> RolloutSnapshot:
        """A copy of everything that decides the future of ``slots``.

        Raises:
            NotImplementedError: where the simulator cannot do it.
        """
        rows = list(slots)
        histories = None if self._histories is None else tuple(_some(self._histories[slot]).copy() for slot in rows)
        return RolloutSnapshot(
            simulator=self.simulator.snapshot(slots),
            arrays={name: array[rows] for name, array in self._now.items()},
            state=_some(self._state).take(rows),
            starts=tuple(_some(self._starts[slot]) for slot in rows),
            histories=histories,
        )

    def restore(self, slots: Sequence[int], snapshot: RolloutSnapshot) -> None:
        """Puts a snapshot of as many slots back, also into other slots.

        Raises:
            ValueError: if the snapshot is of another number of slots.
            NotImplementedError: where the simulator cannot do it.
        """
        rows = list(slots)
        if len(rows) != len(snapshot.starts):
            raise ValueError(f"The snapshot holds {len(snapshot.starts)} slots, {len(rows)} were asked for.")
        self.simulator.restore(slots, snapshot.simulator)
        self._allocate(snapshot.state)
        for name, array in snapshot.arrays.items():
            self._now[name][rows] = array
        _some(self._state).put(rows, snapshot.state)
        for i, slot in enumerate(rows):
            self._starts[slot] = snapshot.starts[i]
            if self._histories is not None and snapshot.histories is not None:
                self._histories[slot] = snapshot.histories[i].copy()

    def close(self) -> None:
        """Closes the simulator; may be called twice."""
        self.simulator.close()
        if self._owned is not None:
            self._owned.close()


def _on_host(picture: Any) -> NDArray[np.uint8]:
    """A picture as an array, wherever it was."""
    array: NDArray[np.uint8] = picture if isinstance(picture, np.ndarray) else picture.cpu().numpy()
    return array


def _some(value: T | None) -> T:
    """The value, which is there once an episode was begun (the environments above check that it was)."""
    assert value is not None, "begin() comes first"
    return value
