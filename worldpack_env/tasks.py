"""What an episode is for: goals to visit in order, rewards, success. Poses are all that most tasks see.

Tasks are pure and batched: a :class:`TaskState` holds one row for each slot, ``step`` takes rows and poses and returns new rows. The
imagined and the real environment run the same task, so a reward means the same in both.

Reward of one step, in reward units::

    0.1 * (blocks that the distance to the current goal shrank) + 1.0 (if that goal was reached) - 0.01

A goal is reached within ``radius`` blocks of it over ground (height is ignored). The episode terminates when the last one is.

:class:`Explore` has no goals and pays for ground that the agent had not stood on before; see there. Two tasks see more than poses: :class:`Find`
waits for an event, such as a tree within reach, that the engine tells and of imagined frames a learned head; :class:`Navigate` hands on what MineRL
itself says, and only an engine can show it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldpack_env.starts import Start
from worldpack_env.worlds import MissionView
from worldpack_model.config import lookup
from worldpack_model.geometry import TICKS_PER_STEP, WALK_BLOCKS_PER_TICK

GOAL_RADIUS: Final = 2.0
"""Blocks over ground within which a goal counts as reached."""
PROGRESS_REWARD: Final = 0.1
"""Per block that the distance to the current goal shrank."""
ARRIVAL_REWARD: Final = 1.0
"""For each goal reached."""
STEP_REWARD: Final = -0.01
"""For each step."""
NEW_CELL_REWARD: Final = 0.1
"""Of :class:`Explore`, for each cell of ground stood on for the first time."""
CELL: Final = 2.0
"""Side of such a cell in blocks."""
CELLS: Final = 128
"""Cells along each side of the square around the start in which :class:`Explore` counts."""
NAVIGATE_BLOCKS: Final = 64
"""Blocks over ground from a world's spawn to the block that MineRL's Navigate hides."""
NAVIGATE_STEPS: Final = 1490
"""Env steps of a Navigate episode: MineRL ends its mission after 6,000 ticks, of which some pass during the reset."""
LOOP_RANGES: Final = {"AB": 1, "ABA": 2, "ABCA": 4}
"""Length of each loop in navigation ranges, at most: B and C both lie within one range of A, so they can be two apart."""


@dataclass
class TaskState:
    """Where ``n`` episodes stand; row i is one of them."""

    goals: NDArray[np.float64]
    """``(n, g, 3)`` feet positions to visit, in order, in blocks; a row with fewer goals repeats its last one."""
    count: NDArray[np.int64]
    """``(n,)`` how many of them there are."""
    subgoal: NDArray[np.int64]
    """``(n,)`` index of the current goal; ``count`` when all are reached."""
    distance: NDArray[np.float64]
    """``(n,)`` blocks over ground to the current (or else the last) goal."""
    visited: NDArray[np.bool_]
    """``(n, c, c)`` cells of ground stood on, for tasks that count them; c is 0 for the others."""
    mission: NDArray[np.float64]
    """``(n, m)`` what a mission of the engine's own said last, ``simulator.Views.mission``; m is 5 for tasks that are one, 0 for the others."""
    event: NDArray[np.bool_]
    """``(n,)`` whether the event that the task waits for happens, ``simulator.Views.event``; False for tasks that wait for none."""
    absent: NDArray[np.bool_]
    """``(n,)`` whether there was a view of the episode in which that event did not happen."""

    @classmethod
    def empty(cls, count: int, like: TaskState) -> TaskState:
        """A state of ``count`` rows in the form of ``like``, all zero."""
        return cls(*(np.zeros((count, *getattr(like, f.name).shape[1:]), getattr(like, f.name).dtype) for f in fields(cls)))

    def take(self, rows: Sequence[int]) -> TaskState:
        """A copy of some rows."""
        index = list(rows)
        return TaskState(*(getattr(self, f.name)[index] for f in fields(self)))

    def put(self, rows: Sequence[int], other: TaskState) -> None:
        """Overwrites some rows."""
        index = list(rows)
        for f in fields(self):
            getattr(self, f.name)[index] = getattr(other, f.name)

    @property
    def compass(self) -> NDArray[np.float64] | None:
        """``(n,)`` degrees that the compass of the engine's own mission shows; None for tasks that are none."""
        return self.mission[:, MissionView._fields.index("compass")] if self.mission.shape[1] else None

    def hear(self, mission: NDArray[np.float64] | None, event: NDArray[np.bool_] | None = None) -> None:
        """Takes up what the engine's own mission says, ``simulator.Views.mission``, and whether an event happens, ``simulator.Views.event``."""
        if event is not None:
            self.event = event.copy()
            self.absent = self.absent | ~self.event
        if mission is not None and self.mission.shape[1]:
            self.mission = mission
            self.distance = mission[:, MissionView._fields.index("distance")].copy()

    def target(self) -> NDArray[np.float64]:
        """``(n, 3)`` position of the current goal, the last one when all are reached."""
        current: NDArray[np.float64] = self.goals[np.arange(len(self.goals)), np.minimum(self.subgoal, self.count - 1)]
        return current


@dataclass(frozen=True)
class TaskStep:
    """What one step meant, for ``n`` episodes."""

    reward: NDArray[np.float64]
    """``(n,)``."""
    terminated: NDArray[np.bool_]
    """``(n,)`` True where the task is over."""
    success: NDArray[np.bool_]
    """``(n,)`` True where all goals are reached."""


class Task(Protocol):
    """Goals and rewards; see the module's text."""

    name: str
    """For people and file names."""
    mission: str | None
    """Name of the mission of the engine's own that this task is; None for the others."""
    event: str | None
    """The event that this task waits for; None for the others."""
    loop: str
    """The waypoints in order of visit, A first: ``AB``, ``ABA`` or ``ABCA``."""
    goal_obs: tuple[str, ...]
    """What the agent can be told about its goal, the default first; of ``goals.GOAL_OBS``."""

    def begin(self, starts: Sequence[Start]) -> TaskState:
        """State of new episodes, one for each start."""

    def step(self, state: TaskState, poses: NDArray[np.float64]) -> tuple[TaskState, TaskStep]:
        """State and outcome after the agents of ``state`` (n rows) came to ``poses (n, 5)``."""

    def shortest(self, start: Start) -> float:
        """Blocks over ground of the shortest way known from a start to success, for :func:`spl`; 0 where there is none."""

    def standing(self, state: TaskState) -> str | None:
        """How the first row of ``state`` stands, in a few words for pictures; None where its goals are places, which pictures show."""


class LoopNav:
    """Visit the goals in order: A -> B -> A, or A -> B -> C -> A (LoopNav's navigation loops).

    From a ``turn`` start the outbound goals were visited in the context frames, so only the way home is left to walk.
    """

    goal_obs: tuple[str, ...] = ("compass", "vector", "image", "none")
    mission: str | None = None
    event: str | None = None

    def __init__(self, loop: str = "ABA", *, radius: float = GOAL_RADIUS, shorter: bool = False) -> None:
        """Makes the task.

        Args:
            loop: ``ABA`` or ``ABCA`` (``AB`` is :class:`GoTo`).
            radius: blocks over ground within which a goal counts as reached.
            shorter: starts of shorter loops are walked as what they are, for curricula.

        Raises:
            ValueError: if there is no such loop or the radius is not positive.
        """
        lookup(LOOP_RANGES, loop, "loop")
        if not radius > 0:
            raise ValueError(f"radius is {radius}, expected a positive number of blocks.")
        self.name, self.loop, self.radius, self.shorter = f"loop-{loop}", loop, radius, shorter

    def begin(self, starts: Sequence[Start]) -> TaskState:
        """State of new episodes, one for each start.

        Raises:
            ValueError: if a start is for another loop.
        """
        for start in starts:
            fits = 2 <= len(start.waypoints) <= len(self.loop) if self.shorter else len(start.waypoints) == len(self.loop)
            if not fits:
                raise ValueError(
                    f"The start has {len(start.waypoints)} waypoints, the loop {self.loop} needs {len(self.loop)}; "
                    f"build the starts with loop={self.loop!r}."
                )
        longest = len(self.loop) - 1
        goals = np.stack([start.waypoints[np.minimum(np.arange(1, longest + 1), len(start.waypoints) - 1)] for start in starts])
        count = np.array([len(start.waypoints) - 1 for start in starts], np.int64)
        subgoal = np.array([c - 1 if s.mode == "turn" else 0 for s, c in zip(starts, count, strict=True)], np.int64)
        n = len(starts)
        state = TaskState(
            goals, count, subgoal, np.zeros(n), np.zeros((n, 0, 0), np.bool_), np.zeros((n, 0)), np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        )
        state.distance[:] = _over_ground(state.target(), np.stack([start.poses[-1] for start in starts]))
        return state

    def step(self, state: TaskState, poses: NDArray[np.float64]) -> tuple[TaskState, TaskStep]:
        """State and outcome after the agents of ``state`` (n rows) came to ``poses (n, 5)``."""
        count = state.count
        distance = _over_ground(state.target(), poses)
        reached = (distance <= self.radius) & (state.subgoal < count)
        reward = PROGRESS_REWARD * (state.distance - distance) + ARRIVAL_REWARD * reached + STEP_REWARD
        after = replace(state, subgoal=state.subgoal + reached, distance=distance)
        success = after.subgoal >= count
        if reached.any():  # progress is measured to the next goal from here on
            after.distance = _over_ground(after.target(), poses)
        return after, TaskStep(reward, success.copy(), success)

    def shortest(self, start: Start) -> float:
        """Blocks over ground of the shortest way known from a start to success, at least 1; bodies may undercut it by a little.

        Each goal is reached ``radius`` before it, and the next leg begins there: the way through the goals, less one radius for the first leg
        and two for each other one.
        """
        legs = 1 if start.mode == "turn" else len(start.waypoints) - 1
        return max(1.0, start.shortest - self.radius * (2 * legs - 1))

    def standing(self, state: TaskState) -> str | None:
        """None: its goals are places."""
        return None


class GoTo(LoopNav):
    """Go from A to B: a loop of one leg."""

    def __init__(self, *, radius: float = GOAL_RADIUS) -> None:
        super().__init__("AB", radius=radius)
        self.name = "goto"

    def begin(self, starts: Sequence[Start]) -> TaskState:
        """State of new episodes, one for each start.

        Raises:
            ValueError: if a start is for another loop, or begins on the way home, which this task does not have.
        """
        if any(start.mode == "turn" for start in starts):
            raise ValueError(f"The task {self.name} has no way home, so its starts cannot be of mode 'turn'; use start='spawn'.")
        return super().begin(starts)


class Explore:
    """See new ground until the time is over.

    The ground is cut into squares of ``CELL`` blocks, ``CELLS`` by ``CELLS`` of them around the start. Reward of one step, in reward units::

        0.1 * (1 if the agent stands in a square it had not stood in, else 0) - 0.01

    The square of the start counts as known, and beyond the outermost squares nothing is new. There is no success: compare returns, or
    ``info["subgoal"]``, the number of new squares. ``info["distance"]`` is the distance to the start, the task's only "goal".
    """

    name = "explore"
    loop = "AB"
    goal_obs = ("none",)
    mission = None
    event = None

    def begin(self, starts: Sequence[Start]) -> TaskState:
        """State of new episodes, one for each start."""
        poses = np.stack([start.poses[-1] for start in starts])
        n = len(starts)
        state = _aimless(poses, visited=np.zeros((n, CELLS, CELLS), np.bool_), mission=np.zeros((n, 0)))
        row, column = _cell(state, poses)[0].T
        state.visited[np.arange(n), row, column] = True
        return state

    def step(self, state: TaskState, poses: NDArray[np.float64]) -> tuple[TaskState, TaskStep]:
        """State and outcome after the agents of ``state`` (n rows) came to ``poses (n, 5)``."""
        cell, inside = _cell(state, poses)
        at = (np.arange(len(poses)), *cell.T)
        new = inside & ~state.visited[at]
        visited = state.visited.copy()
        visited[at] |= inside
        after = replace(state, subgoal=state.subgoal + new, distance=_over_ground(state.target(), poses), visited=visited)
        never = np.zeros(len(poses), np.bool_)
        return after, TaskStep(NEW_CELL_REWARD * new + STEP_REWARD, never, never.copy())

    def shortest(self, start: Start) -> float:
        """0: there is no way to be the shortest."""
        return 0.0

    def standing(self, state: TaskState) -> str | None:
        """How many squares were new."""
        return f"{int(state.subgoal[0])} new squares"


class Find:
    """Look at something of a kind from within reach: a tree (``log``), a coloured block of a landmark (``concrete``). There is no compass.

    What happens in a view an engine tells of its blocks (``worlds.World``), and of imagined frames a learned head (``worldpack_model.events``): an
    imagined world has no blocks that could be asked. Reward of one step, in reward units::

        1.0 * (1 if it happens, else 0) - 0.01

    The episode ends when it happens. Who begins where it happens has not found it yet: it must have been out of sight once. Where nothing of the kind
    is near, it cannot be found; compare agents on the same starts. ``info["distance"]`` is the distance to the start, and ``info["spl"]`` says
    nothing: nobody knows the shortest way to something that may be anywhere.
    """

    loop = "AB"
    goal_obs = ("none",)
    mission = None

    def __init__(self, event: str = "log") -> None:
        """Makes the task.

        Raises:
            ValueError: if the event has no name.
        """
        if not event:
            raise ValueError("The task find needs the name of an event, such as 'log'; got an empty one.")
        self.name = "find"
        self.event = event

    def begin(self, starts: Sequence[Start]) -> TaskState:
        """State of new episodes, one for each start."""
        n = len(starts)
        return _aimless(np.stack([start.poses[-1] for start in starts]), visited=np.zeros((n, 0, 0), np.bool_), mission=np.zeros((n, 0)))

    def step(self, state: TaskState, poses: NDArray[np.float64]) -> tuple[TaskState, TaskStep]:
        """State and outcome after the agents of ``state`` (n rows) came to ``poses (n, 5)`` and ``state.event`` was heard."""
        found = state.event & state.absent
        after = replace(state, subgoal=found.astype(np.int64), distance=_over_ground(state.goals[:, 0], poses))
        return after, TaskStep(np.where(found, ARRIVAL_REWARD, 0.0) + STEP_REWARD, found, found.copy())

    def shortest(self, start: Start) -> float:
        """0: nobody knows."""
        return 0.0

    def standing(self, state: TaskState) -> str | None:
        """Whether it was found."""
        return f"{self.event} {'found' if state.subgoal[0] else 'not found yet'}"


class Navigate:
    """MineRL's own Navigate: find the diamond block that its engine hides 64 blocks from the world's spawn, with a compass that points near it.

    Observation of the goal, reward and end are the engine's own word, summed over the ticks of a step: 100 for touching the block, which ends the
    episode, and with ``dense`` 1 for each block that the way to the compass's target shrank. ``info["is_success"]`` is whether the block was touched,
    ``info["distance"]`` the way to the compass's target, in blocks.
    """

    loop = "AB"
    goal_obs = ("compass", "none")
    event = None

    def __init__(self, *, dense: bool = False) -> None:
        self.name = self.mission = "navigate-dense" if dense else "navigate"

    def begin(self, starts: Sequence[Start]) -> TaskState:
        """State of new episodes, one for each start; nothing but the engine knows where their goals are."""
        poses, n = np.stack([start.poses[-1] for start in starts]), len(starts)
        return _aimless(poses, visited=np.zeros((n, 0, 0), np.bool_), mission=np.zeros((n, len(MissionView._fields))))

    def step(self, state: TaskState, poses: NDArray[np.float64]) -> tuple[TaskState, TaskStep]:
        """State and outcome after the engine said ``state.mission``."""
        reward, done, success = state.mission.T[:3]
        return replace(state, subgoal=(success > 0).astype(np.int64)), TaskStep(reward.copy(), done > 0, success > 0)

    def shortest(self, start: Start) -> float:
        """Blocks over ground from a world's spawn to the block."""
        return float(NAVIGATE_BLOCKS)

    def standing(self, state: TaskState) -> str | None:
        """None: its goal is a place."""
        return None


def _aimless(poses: NDArray[np.float64], *, visited: NDArray[np.bool_], mission: NDArray[np.float64]) -> TaskState:
    """State of episodes that begin at ``poses (n, 5)``, whose only goal that is known is where they begin."""
    n = len(poses)
    never = np.zeros(n, np.bool_)
    return TaskState(poses[:, None, :3].copy(), np.ones(n, np.int64), np.zeros(n, np.int64), np.zeros(n), visited, mission, never, never.copy())


def _cell(state: TaskState, poses: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Numbers ``(n, 2)`` of the squares of ground under poses ``(n, 5)``, clipped to those there are, and whether they are among them ``(n,)``."""
    cell = np.floor((poses[:, [0, 2]] - state.goals[:, 0][:, [0, 2]]) / CELL + CELLS / 2).astype(np.int64)
    clipped = np.clip(cell, 0, CELLS - 1)
    return clipped, (cell == clipped).all(axis=1)


def _over_ground(targets: NDArray[np.float64], poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance ``(n,)`` in blocks from poses ``(n, 5)`` to targets ``(n, 3)``, height ignored."""
    distance: NDArray[np.float64] = np.hypot(targets[:, 0] - poses[:, 0], targets[:, 2] - poses[:, 2])
    return distance


def spl(success: ArrayLike, shortest: ArrayLike, walked: ArrayLike) -> NDArray[np.float64]:
    """Success weighted by path length, Anderson et al. 2018: ``success * shortest / max(walked, shortest)``.

    Args:
        success: whether the episode succeeded; any shape.
        shortest: length of the shortest way in blocks.
        walked: blocks walked.

    Returns:
        Values in [0, 1], of the arguments' shape.
    """
    best = np.asarray(shortest, np.float64)
    longest = np.maximum(np.maximum(best, np.asarray(walked, np.float64)), 1e-9)
    value: NDArray[np.float64] = np.asarray(success, np.float64) * np.minimum(np.maximum(best, 1e-9) / longest, 1.0)
    return value


def default_step_limit(loop: str, *, nav_range: int, mode: str = "spawn") -> int:
    """Env steps an episode may take unless the user says otherwise.

    ``ceil(3 * (path / 0.8636 + 16 * legs))``: three times the steps of a walk of ``path`` blocks at walking speed with a full turn of 16
    steps on each leg. The path counts 1.5 blocks for each block of range, for ways round obstacles and diagonals.

    Args:
        loop: ``AB``, ``ABA`` or ``ABCA``.
        nav_range: LoopNav's range in blocks.
        mode: ``spawn`` walks every leg, ``turn`` only the way home.
    """
    legs, ranges = (1, 1) if mode == "turn" else (len(loop) - 1, LOOP_RANGES[loop])
    path = 1.5 * nav_range * ranges
    return math.ceil(3 * (path / (WALK_BLOCKS_PER_TICK * TICKS_PER_STEP) + 16 * legs))


def make_task(name: str, *, loop: str = "ABA", event: str = "log", shorter: bool = False) -> Task:
    """Makes a task by name.

    Args:
        name: ``loop``, ``goto``, ``explore``, ``find``, ``navigate`` or ``navigate-dense``.
        loop: ``ABA`` or ``ABCA``; for ``loop`` only.
        event: what to find; for ``find`` only.
        shorter: see :class:`LoopNav`; for ``loop`` only.

    Raises:
        ValueError: if there is no such task or loop.
    """
    makers: dict[str, Any] = {
        "loop": lambda: LoopNav(loop, shorter=shorter),
        "goto": GoTo,
        "explore": Explore,
        "find": lambda: Find(event),
        "navigate": Navigate,
        "navigate-dense": lambda: Navigate(dense=True),
    }
    task: Task = lookup(makers, name, "task")()
    return task
