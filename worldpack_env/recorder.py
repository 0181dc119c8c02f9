"""Plays scripted explorers in a real engine and writes what they see as episodes.

The explorers are *policies*: generators that yield an action and are sent the next :class:`~worldpack_env.worlds.WorldView`, so each
decides from the true pose (closed loop) and they compose with ``yield from``. Loop tasks follow LoopNav: look around at A, walk A->B->A
or A->B->C->A along A* ways, never sprint. Two things differ from LoopNav. The way home of ABA is the outbound way reversed (LoopNav plans
it anew), so that it sees the same places again; and a loop ends with a closing look-around at A (phase ``close``; LoopNav ends on
arrival), the moment where only a model that remembers can be right.

Turning varies from episode to episode (:class:`Style`), from exact 22.5 degree steps, as discrete action sets turn, to smooth turns of up
to 45 degrees a step. Without that variety a model trained on the recordings would only know one way to turn.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import signal
import time
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from worldpack_model.episodes import (
    INDEX_NAME,
    SPLITS,
    Episode,
    EpisodeIndex,
    EpisodeMissingError,
    IndexEntry,
    entry_of,
    write_atomically,
    write_episode,
)
from worldpack_model.geometry import ACTION_DIM, DPITCH, DYAW, KEYS, forward_vector, wrap_degrees, yaw_towards

from worldpack_env.worlds import Surface, World, WorldView, make_world
from worldpack_env.worlds.paths import (
    MAX_DROP,
    Cell,
    can_stand,
    cell_of,
    find_path,
    goals_in_ring,
    inside,
    nearest_standable,
    path_points,
    point_of,
    walking_costs,
)

LOGGER = logging.getLogger(__name__)

TURN: Final = 22.5
"""Degrees of one step of a look-around, and of a turn in the discrete action sets."""
LOOK_STEPS: Final = 16
"""Steps of a full look-around."""
MAX_TURN: Final = 45.0
"""Greatest turn in one step, in degrees."""
ARRIVAL: Final = 0.9
"""Distance in blocks at which a goal counts as reached (LoopNav: 1)."""
LOOP_TASKS: Final = ("ABA", "ABCA")
FREE_TASKS: Final = ("explore", "bump")
RECIPE_NAME: Final = "recipe.json"
_STARTS_TRIED: Final = 24
_SITE_SPREAD: Final = 70
_START_SPREAD: Final = 20
_GOAL_SPREAD: Final = 80
_SEEDS_TRIED: Final = 20
_SAVE_SECONDS: Final = 20.0

Action = NDArray[np.float32]
Script = Generator[Action, WorldView, bool]
"""Yields actions, is sent what followed, returns whether it did what it was for."""


class RecordError(RuntimeError):
    """Recording cannot go on; the message says what to do."""


class CannotLayTask(RecordError):
    """The world has no place for the task (no start with a reachable goal)."""


class _Stuck(Exception):
    """A walker gave up before it reached its goal."""


class WorldFactory(Protocol):
    """Makes an engine by name, as :func:`worldpack_env.worlds.make_world`; must be picklable for parallel recording."""

    def __call__(self, name: str, *, frame_size: tuple[int, int]) -> World:
        """Makes the engine ``name`` with frames of ``frame_size`` (height, width) pixels."""


# ---------------------------------------------------------------------------------------------------------------------------- scripts


@dataclass(frozen=True)
class Style:
    """How an explorer turns."""

    stepped: bool
    """True: every turn is exactly ``TURN`` degrees, as in the discrete action sets. False: turns are continuous."""
    max_turn: float
    """Greatest turn in one step, in degrees (continuous turns only)."""
    walk_while_turning: bool
    """False stops to turn, as agents with one key an action must."""
    jitter: float
    """Standard deviation of the noise on a continuous turn, in degrees."""
    direction: int
    """+1 or -1: the way a look-around turns."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Style:
        """A random style: half stepped, half continuous."""
        stepped = bool(rng.random() < 0.5)
        return cls(
            stepped=stepped,
            max_turn=TURN if stepped else float(rng.uniform(15.0, MAX_TURN)),
            walk_while_turning=bool(rng.random() < 0.6),
            jitter=0.0 if stepped else float(rng.choice([0.0, 1.0, 4.0])),
            direction=1 if rng.random() < 0.5 else -1,
        )

    def turn(self, error: float, rng: np.random.Generator) -> float:
        """Degrees to turn in the next step, for a heading that is off by ``error`` degrees."""
        if self.stepped:
            return 0.0 if abs(error) <= 0.55 * TURN else float(np.copysign(TURN, error))
        return float(np.clip(error + self.jitter * rng.standard_normal(), -self.max_turn, self.max_turn))


def make_action(*keys: str, dyaw: float = 0.0, dpitch: float = 0.0) -> Action:
    """An action ``(9,) float32`` with the named keys held and a camera turn in degrees."""
    action = np.zeros(ACTION_DIM, np.float32)
    for key in keys:
        action[KEYS.index(key)] = 1.0
    action[DPITCH], action[DYAW] = dpitch, dyaw
    return action


def look(style: Style) -> Script:
    """Turns once around in 16 steps of 22.5 degrees and ends where it began (LoopNav's look-around)."""
    for _ in range(LOOK_STEPS):
        yield make_action(dyaw=TURN * style.direction)
    return True


def level(view: WorldView, style: Style) -> Script:
    """Brings the pitch back to 0."""
    while abs(view.pose[4]) > 0.01:
        view = yield make_action(dpitch=float(np.clip(-view.pose[4], -style.max_turn, style.max_turn)))
    return True


def walk_to(
    view: WorldView,
    surface: Surface,
    goal: Cell,
    style: Style,
    rng: np.random.Generator,
    *,
    path: list[Cell] | None = None,
    radius: float = ARRIVAL,
    max_drop: int = MAX_DROP,
) -> Script:
    """Walks to a cell along an A* way; plans anew when it is stuck or off the way, and gives up after a bound.

    Args:
        view: what is seen now.
        surface: walkable surface of the world.
        goal: cell to reach.
        style: how to turn.
        rng: source of chance, for noise and for getting free.
        path: way to try first; None plans one.
        radius: distance in blocks at which the goal counts as reached.
        max_drop: greatest fall in one move in blocks.

    Returns:
        True when the goal was reached, False when the walker gave up.
    """
    target = point_of(surface, goal)
    replans = 0
    budget = 40 + int(4.0 * (len(path) if path else np.abs(np.subtract(goal, cell_of(surface, view.pose))).sum()))
    points = path_points(surface, path) if path else None
    progress = 0
    idle = 0
    best = np.inf
    while budget > 0:
        pose = view.pose
        if _near(pose, target, radius):
            return True
        if points is None:
            here = cell_of(surface, pose)
            start = here if can_stand(surface, here) else nearest_standable(surface, pose)
            cells = None if start is None else find_path(surface, start, goal, max_drop=max_drop)
            replans += 1
            if cells is None or replans > 8:
                return False
            points, progress, idle, best = path_points(surface, cells), 0, 0, np.inf
        progress, off = _follow(points, pose, progress)
        left = len(points) - progress + off
        idle = 0 if left < best - 0.05 else idle + 1
        best = min(best, left)
        if off > 2.5 or idle >= 12:
            if idle >= 12:
                view = yield from _get_free(view, style, rng)
                budget -= 4
            points = None
            continue
        # Look further ahead on open ground than at corners and steps, where cutting the corner means a wall or a fall.
        ahead = points[min(progress + (1 if view.blocked or idle > 2 else 2), len(points) - 1)]
        if np.hypot(*(ahead - pose[:3])[[0, 2]]) < 0.3:
            ahead = target
        error = float(wrap_degrees(yaw_towards(pose[:3], ahead) - pose[3]))
        dyaw = style.turn(error, rng)
        remaining = abs(float(wrap_degrees(error - dyaw)))
        turning = dyaw != 0.0 and style.stepped and not style.walk_while_turning
        keys = []
        if not turning and remaining <= (30.0 if style.walk_while_turning else 14.0):
            keys.append("forward")
            rise = points[progress : progress + 3, 1].max() - pose[1]
            if rise > 0.4 or (view.blocked and idle > 0) or _in_water(surface, pose):
                keys.append("jump")
        view = yield make_action(*keys, dyaw=dyaw)
        budget -= 1
    return False


def _near(pose: ArrayLike, target: NDArray[np.float64], radius: float) -> bool:
    """True when a pose is within ``radius`` blocks of a point over ground, and not a floor above or below."""
    delta = np.asarray(pose)[:3] - target
    return bool(np.hypot(delta[0], delta[2]) <= radius and abs(delta[1]) <= 1.3)


def _in_water(surface: Surface, pose: NDArray[np.float64]) -> bool:
    """True where no player can stand: in water the jump key swims up, so a walker that fell in holds it."""
    cell = cell_of(surface, pose)
    return inside(surface, cell) and not surface.walkable[cell]


def _follow(points: NDArray[np.float64], pose: NDArray[np.float64], progress: int) -> tuple[int, float]:
    """Next index along a way, never going back, and the distance over ground to it in blocks."""
    window = points[progress : progress + 5]
    distances = np.hypot(window[:, 0] - pose[0], window[:, 2] - pose[2])
    nearest = int(np.argmin(distances))
    return progress + nearest, float(distances[nearest])


def _get_free(view: WorldView, style: Style, rng: np.random.Generator) -> Generator[Action, WorldView, WorldView]:
    """A few odd moves that free a stuck walker."""
    side = str(rng.choice(["left", "right", "back"]))
    for _ in range(2):
        view = yield make_action(side, "jump")
    for _ in range(2):
        view = yield make_action("forward", "jump", dyaw=style.turn(float(rng.uniform(-60, 60)), rng))
    return view


def explore(view: WorldView, surface: Surface, style: Style, rng: np.random.Generator, steps: int) -> Script:
    """Wanders without a goal: walks with smooth or stepped turns, looks around and up and down, strafes, presses random keys, returns.

    Args:
        view: what is seen now.
        surface: walkable surface of the world.
        style: how to turn; redrawn now and then.
        rng: source of chance.
        steps: number of actions.
    """
    left = steps
    visited = [cell_of(surface, view.pose)]
    names = ["walk", "turn", "look", "strafe", "tilt", "keys", "return", "wait"]
    odds = np.array([0.42, 0.13, 0.06, 0.08, 0.14, 0.08, 0.07, 0.02])
    while left > 0:
        name = str(rng.choice(names, p=odds))
        if rng.random() < 0.1:
            style = Style.draw(rng)
        if name == "walk":
            segment = _wander(view, surface, style, rng, int(rng.integers(6, 30)))
        elif name == "turn":
            segment = _turn_by(style, rng, float(rng.uniform(-200, 200)))
        elif name == "look":
            segment = look(replace(style, direction=1 if rng.random() < 0.5 else -1))
        elif name == "strafe":
            segment = _hold(rng, str(rng.choice(["left", "right", "back"])), int(rng.integers(2, 8)))
        elif name == "tilt":
            segment = _tilt(view, surface, style, rng)
        elif name == "keys":
            segment = _random_keys(rng, int(rng.integers(6, 20)))
        elif name == "return":
            goal = visited[int(rng.integers(len(visited)))]
            if not can_stand(surface, goal) or np.abs(np.subtract(goal, cell_of(surface, view.pose))).max() < 4:
                continue
            segment = walk_to(view, surface, goal, style, rng)
        else:
            segment = _hold(rng, None, int(rng.integers(1, 4)))
        view, left, _ = yield from _run(segment, view, left, surface, visited)
        if abs(view.pose[4]) > 0.01 and rng.random() < 0.5:
            view, left, _ = yield from _run(level(view, style), view, left)
    return True


def bump(view: WorldView, surface: Surface, style: Style, rng: np.random.Generator, steps: int) -> Script:
    """Walks into walls on purpose, along them and away again, jumping at random; wanders where there is no wall near.

    Args:
        view: what is seen now.
        surface: walkable surface of the world.
        style: how to turn.
        rng: source of chance.
        steps: number of actions.
    """
    left = steps
    walls = _walls(surface)
    while left > 0:
        spot = _wall_near(surface, walls, view.pose, rng)
        if spot is not None:
            foot, wall = spot
            view, left, arrived = yield from _run(walk_to(view, surface, foot, style, rng, radius=0.6), view, left)
            if arrived and left > 0:
                toward = point_of(surface, foot) + np.array([wall[0] - foot[0], 0.0, wall[1] - foot[1]])
                heading = float(yaw_towards(view.pose[:3], toward)) + float(rng.choice([0.0, 1.0])) * float(rng.uniform(-60, 60))
                view, left, _ = yield from _run(_turn_to(view, style, rng, heading), view, left)
                for _ in range(int(rng.integers(2, 6))):
                    view, left, _ = yield from _run(_push(rng, int(rng.integers(4, 10))), view, left)
                    if rng.random() < 0.3:
                        continue
                    view, left, _ = yield from _run(
                        _turn_by(style, rng, float(rng.choice([-90, -45, -22.5, 22.5, 45, 90]))), view, left
                    )
        if spot is None or rng.random() < 0.3:
            view, left, _ = yield from _run(_wander(view, surface, style, rng, int(rng.integers(3, 12)), careful=0.3), view, left)
    return True


def _run(
    segment: Script, view: WorldView, left: int, surface: Surface | None = None, visited: list[Cell] | None = None
) -> Generator[Action, WorldView, tuple[WorldView, int, bool]]:
    """Plays a segment for at most ``left`` actions; returns the last view, the actions left, and the segment's own result."""
    try:
        action = next(segment)
        while left > 0:
            view = yield action
            left -= 1
            if surface is not None and visited is not None:
                cell = cell_of(surface, view.pose)
                if cell != visited[-1]:
                    visited.append(cell)
            action = segment.send(view)
    except StopIteration as stop:
        return view, left, bool(stop.value)
    segment.close()
    return view, left, False


def _wander(view: WorldView, surface: Surface, style: Style, rng: np.random.Generator, steps: int, careful: float = 0.85) -> Script:
    """Walks ahead with a heading that drifts; jumps or turns away when blocked; mostly keeps away from water, cliffs and the edge."""
    drift = float(rng.normal(0.0, 8.0))
    owed = 0.0
    for _ in range(steps):
        drift = 0.8 * drift + float(rng.normal(0.0, 5.0))
        jump = _in_water(surface, view.pose)
        if view.blocked:
            if rng.random() < 0.5:
                jump = True
            else:
                owed = float(rng.choice([-1.0, 1.0])) * float(rng.uniform(45.0, 180.0))
        elif abs(owed) < TURN and not _free_ahead(surface, view.pose) and rng.random() < careful:
            owed = float(rng.choice([-1.0, 1.0])) * float(rng.uniform(60.0, 150.0))
        elif _steps_up(surface, view.pose) or rng.random() < 0.02:
            jump = True
        if style.stepped:
            owed += drift if abs(owed) < TURN else 0.0
            dyaw = float(np.copysign(TURN, owed)) if abs(owed) >= TURN else 0.0
        else:
            dyaw = float(np.clip(owed + drift, -style.max_turn, style.max_turn))
        owed = 0.0 if abs(owed - dyaw) < 1e-9 or np.sign(owed - dyaw) != np.sign(owed) else owed - dyaw
        keys = [] if dyaw != 0.0 and style.stepped and not style.walk_while_turning else ["forward"]
        if abs(owed) > 60.0:
            keys = []
        if jump:
            keys.append("jump")
        view = yield make_action(*keys, dyaw=dyaw)
    return True


def _heading_cell(surface: Surface, pose: NDArray[np.float64], distance: float) -> Cell:
    return cell_of(surface, pose[:3] + distance * forward_vector(pose[3]))


def _free_ahead(surface: Surface, pose: NDArray[np.float64]) -> bool:
    """True when the next two blocks ahead are ground without a long fall or a wall."""
    return all(
        can_stand(surface, cell) and -MAX_DROP <= surface.heights[cell] - pose[1] <= 2.1
        for cell in (_heading_cell(surface, pose, 1.0), _heading_cell(surface, pose, 2.0))
    )


def _steps_up(surface: Surface, pose: NDArray[np.float64]) -> bool:
    cell = _heading_cell(surface, pose, 1.0)
    return can_stand(surface, cell) and 0.4 < surface.heights[cell] - pose[1] <= 1.1


def _turn_by(style: Style, rng: np.random.Generator, angle: float) -> Script:
    """Turns in place by about ``angle`` degrees."""
    if style.stepped:
        for _ in range(round(abs(angle) / TURN)):
            yield make_action(dyaw=float(np.copysign(TURN, angle)))
        return True
    while abs(angle) > 0.5:
        dyaw = float(np.clip(angle, -style.max_turn, style.max_turn))
        yield make_action(dyaw=dyaw)
        angle -= dyaw
    return True


def _turn_to(view: WorldView, style: Style, rng: np.random.Generator, heading: float) -> Script:
    """Turns in place to a yaw in degrees (the nearest that a stepped style can reach)."""
    yield from _turn_by(style, rng, float(wrap_degrees(heading - view.pose[3])))
    return True


def _hold(rng: np.random.Generator, key: str | None, steps: int) -> Script:
    """Holds one key (None waits), sometimes with forward as well."""
    keys = [] if key is None else [key]
    if key in ("left", "right") and rng.random() < 0.4:
        keys.append("forward")
    for _ in range(steps):
        yield make_action(*keys)
    return True


def _tilt(view: WorldView, surface: Surface, style: Style, rng: np.random.Generator) -> Script:
    """Looks up or down (within 30 degrees), walks so for a while, and looks level again."""
    goal = float(rng.choice([-22.5, 22.5])) if style.stepped else float(rng.uniform(-30.0, 30.0))
    while abs(goal - view.pose[4]) > 0.01:
        view = yield make_action(dpitch=float(np.clip(goal - view.pose[4], -style.max_turn, style.max_turn)))
    walk = _wander(view, surface, style, rng, int(rng.integers(0, 12)))
    view, _, _ = yield from _run(walk, view, 1000)
    yield from level(view, style)
    return True


def _random_keys(rng: np.random.Generator, steps: int) -> Script:
    """Presses keys without a plan, as an untrained agent does."""
    names = ["forward", "back", "left", "right", "jump"]
    discrete = rng.random() < 0.5
    for _ in range(steps):
        if discrete:
            choice = int(rng.integers(6))
            turn = {3: -TURN, 4: TURN}.get(choice, 0.0)
            yield make_action(*(["forward"] if choice < 2 else ["forward", "jump"] if choice == 2 else []), dyaw=turn)
        else:
            held = [name for name in names if rng.random() < (0.5 if name == "forward" else 0.15)]
            yield make_action(*held, dyaw=float(np.clip(rng.normal(0.0, 15.0), -MAX_TURN, MAX_TURN)))
    return True


def _push(rng: np.random.Generator, steps: int) -> Script:
    """Walks ahead whatever is there, jumping at random."""
    side = str(rng.choice(["", "", "", "left", "right"]))
    for _ in range(steps):
        keys = ["forward", *([side] if side else []), *(["jump"] if rng.random() < 0.2 else [])]
        yield make_action(*keys, dyaw=float(rng.choice([0.0, 0.0, 0.0, TURN, -TURN])) if rng.random() < 0.2 else 0.0)
    return True


def _walls(surface: Surface) -> NDArray[np.bool_]:
    """``(4, X, Z)``: True where a standing player has a wall on the -x, +x, -z, +z side: something it cannot walk up, or stand on."""
    padded = np.pad(surface.heights.astype(np.int32), 1, constant_values=-1000)
    blocked = np.pad(~surface.walkable, 1, constant_values=False)
    sides = []
    for di, dj in _SIDES:
        beside = padded[1 + di : padded.shape[0] - 1 + di, 1 + dj : padded.shape[1] - 1 + dj]
        closed = blocked[1 + di : padded.shape[0] - 1 + di, 1 + dj : padded.shape[1] - 1 + dj]
        rise = beside - surface.heights
        sides.append(surface.walkable & ((rise >= 2) | (closed & (rise >= 0))))
    return np.stack(sides)


_SIDES: Final = ((-1, 0), (1, 0), (0, -1), (0, 1))


def _wall_near(surface: Surface, walls: NDArray[np.bool_], pose: NDArray[np.float64], rng: np.random.Generator) -> tuple[Cell, Cell] | None:
    """A cell within a short walk that has a wall beside it, and the wall's cell."""
    here = nearest_standable(surface, pose)
    if here is None:
        return None
    costs = walking_costs(surface, here, max_cost=10.0)
    if not (walls & np.isfinite(costs)).any():
        costs = walking_costs(surface, here, max_cost=30.0)
    spots = np.argwhere(walls & np.isfinite(costs))
    if len(spots) == 0:
        return None
    side, i, j = (int(v) for v in spots[rng.integers(len(spots))])
    di, dj = _SIDES[side]
    return (i, j), (i + di, j + dj)


# ---------------------------------------------------------------------------------------------------------------------------- one episode


class _Tape:
    """Collects what a world shows while scripts play in it."""

    def __init__(self, view: WorldView) -> None:
        self.view = view
        self.frames = [view.frame.copy()]
        self.poses = [view.pose.copy()]
        self.actions: list[Action] = []
        self.blocked: list[bool] = []
        self.phases = ["look"]

    def play(self, world: World, script: Script, phase: str) -> bool:
        """Plays a script to its end and returns its result."""
        try:
            action = next(script)
            while True:
                self.view = world.step(action)
                self.frames.append(self.view.frame.copy())
                self.poses.append(self.view.pose.copy())
                self.actions.append(action)
                self.blocked.append(bool(self.view.blocked))
                self.phases.append(phase)
                action = script.send(self.view)
        except StopIteration as stop:
            return bool(stop.value)


def record_episode(world: World, *, seed: int, task: str, nav_range: int, rng: np.random.Generator, explore_steps: int = 128) -> Episode:
    """Records one episode.

    Args:
        world: engine to play in; is reset.
        seed: world seed.
        task: ``ABA``, ``ABCA``, ``explore`` or ``bump``.
        nav_range: LoopNav's range in blocks (loop tasks only).
        rng: all chance of the episode comes from it.
        explore_steps: actions of an ``explore`` or ``bump`` episode.

    Returns:
        The episode.

    Raises:
        ValueError: if there is no such task, or a loop task has no positive range.
        CannotLayTask: if the world has no start with a reachable goal, or walkers got stuck from every start tried.
    """
    if task not in LOOP_TASKS + FREE_TASKS:
        raise ValueError(f"There is no scripted task named {task!r}; known: {', '.join(LOOP_TASKS + FREE_TASKS)}.")
    if task in LOOP_TASKS and nav_range <= 0:
        raise ValueError(f"{task} needs a positive nav_range in blocks, not {nav_range}.")
    world.reset(seed)
    surface = world.surface()
    for _ in range(_STARTS_TRIED):
        waypoints = _lay(surface, task, nav_range, rng)
        if waypoints is None:
            continue
        try:
            return _play(world, surface, waypoints, seed=seed, task=task, nav_range=nav_range, rng=rng, explore_steps=explore_steps)
        except _Stuck as error:
            LOGGER.debug("World %s seed %d, %s %d: %s; trying another start.", world.name, seed, task, nav_range, error)
    raise CannotLayTask(
        f"World {world.name!r} with seed {seed} has no place for {task} with range {nav_range} "
        f"({_STARTS_TRIED} starts tried); use another seed or a smaller range."
    )


def _lay(surface: Surface, task: str, nav_range: int, rng: np.random.Generator) -> list[Cell] | None:
    """Cells of A, B(, C), or None where the random start has no fitting goals.

    LoopNav's rule: a site near the middle of the world, a start within 20 blocks of it, goals within 80 blocks of the site.
    """
    middle = np.array(surface.heights.shape) // 2
    site = middle + rng.integers(-_SITE_SPREAD, _SITE_SPREAD + 1, 2)
    start = site + rng.integers(-_START_SPREAD, _START_SPREAD + 1, 2)
    a: Cell = (int(start[0]), int(start[1]))
    if not can_stand(surface, a):
        return None
    if task in FREE_TASKS:
        # Enough ground to walk on, so that the start is not a pit or a small island.
        return [a] if np.isfinite(walking_costs(surface, a, max_cost=20.0)).sum() >= 150 else None
    # Loops are laid over ground that can be walked both ways, or the way home could need a climb nobody can make.
    goals = goals_in_ring(surface, a, nav_range, max_drop=1)
    goals = goals[np.abs(goals - site).max(axis=1, initial=0) <= _GOAL_SPREAD]
    if len(goals) == 0:
        return None
    b = goals[rng.integers(len(goals))]
    waypoints = [a, (int(b[0]), int(b[1]))]
    if task == "ABCA":
        # C must not be B again: at least half a range apart, so that the loop encloses some ground.
        apart = goals[np.abs(goals - b).max(axis=1) >= 0.5 * nav_range]
        if len(apart) == 0:
            return None
        c = apart[rng.integers(len(apart))]
        waypoints.append((int(c[0]), int(c[1])))
    return waypoints


def _play(
    world: World,
    surface: Surface,
    waypoints: list[Cell],
    *,
    seed: int,
    task: str,
    nav_range: int,
    rng: np.random.Generator,
    explore_steps: int,
) -> Episode:
    style = Style.draw(rng)
    # A third each: LoopNav's yaw 0, a yaw that stepped turns return to, any yaw.
    yaw = float(rng.choice([0.0, TURN * int(rng.integers(16)), float(rng.uniform(-180.0, 180.0))]))
    start = point_of(surface, waypoints[0])
    tape = _Tape(world.reset(seed, np.array([*start, float(wrap_degrees(yaw)), 0.0])))
    turn_index = None
    if task in FREE_TASKS:
        script = explore if task == "explore" else bump
        tape.phases[0] = task
        tape.play(world, script(tape.view, surface, style, rng, explore_steps), task)
    else:
        turn_index = _play_loop(world, tape, surface, waypoints, style, rng)
    return Episode(
        frames=np.stack(tape.frames),
        poses=np.stack(tape.poses),
        actions=np.stack(tape.actions).astype(np.float32),
        task=task,
        site=f"{world.name}_{seed:06d}",
        nav_range=nav_range if task in LOOP_TASKS else 0,
        seed=seed,
        world=world.name,
        waypoints=path_points(surface, waypoints),
        phases=tuple(tape.phases),
        turn_index=turn_index,
        blocked=np.array(tape.blocked, np.bool_),
    )


def _play_loop(world: World, tape: _Tape, surface: Surface, waypoints: list[Cell], style: Style, rng: np.random.Generator) -> int:
    """Plays look-around, legs, and closing look-around; returns the index of the first frame of the way home."""
    tape.play(world, look(style), "look")
    home = waypoints[0]
    walked: list[Cell] | None = None
    for leg, (here, goal) in enumerate(pairwise(waypoints)):
        walked = find_path(surface, here, goal, max_drop=1)
        walk = walk_to(tape.view, surface, goal, style, rng, path=walked, max_drop=1)
        if walked is None or not tape.play(world, walk, "out" if leg == 0 else "out2"):
            raise _Stuck(f"no way walked to goal {goal}")
    turn_index = len(tape.frames)
    back = walked[::-1] if walked and len(waypoints) == 2 else find_path(surface, waypoints[-1], home, max_drop=1)
    if back is None or not tape.play(world, walk_to(tape.view, surface, home, style, rng, path=back, radius=0.7), "back"):
        raise _Stuck("no way walked home")
    if len(tape.frames) == turn_index:
        raise _Stuck("home was reached without a step")
    tape.play(world, look(style), "close")
    return turn_index


# ---------------------------------------------------------------------------------------------------------------------------- many episodes


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_mix() -> dict[str, float]:
    """Weights of the tasks: ``TASK-RANGE`` for loops, the name alone for the others.

    Long ranges weigh as much in *episodes* as short ones, hence more in frames; a quarter of the episodes has no goal.
    """
    loops = {f"{task}-{reach}": 1.0 for task in LOOP_TASKS for reach in (5, 15, 30, 50)}
    return {**loops, "explore": 2.0, "bump": 0.75}


@dataclass(frozen=True)
class RecordConfig:
    """What to record, and where to."""

    out: Path
    """Folder of the recordings; an interrupted recording of the same settings continues in it."""
    episodes: int = 1000
    """Number of episodes the folder shall hold in the end; may be raised later to record more."""
    world: str = "voxel"
    """Engine to record in."""
    mix: dict[str, float] = field(default_factory=default_mix)
    """Weights of the tasks, such as ABA-15, ABCA-50, explore, bump."""
    split: Literal["train", "val", "test"] = "train"
    """Which world seeds to record: no world of one split is seen in another."""
    seed: int = 0
    """First world seed, counted from the split's own first; episode i is recorded in world seed + i."""
    frame_size: int = 64
    """Height and width of the frames in pixels."""
    explore_steps: int = 128
    """Actions of an explore or bump episode."""
    workers: int = field(default_factory=_cores)
    """Processes that record at the same time, one world each; by default one for each core."""

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ValueError: if one is out of bounds; the message names it.
        """
        for name, value in (("episodes", self.episodes), ("explore_steps", self.explore_steps), ("workers", self.workers)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}.")
        if self.frame_size < 16 or self.frame_size % 2:
            raise ValueError(f"frame_size must be even and at least 16, not {self.frame_size}.")
        if self.split not in SPLITS:
            raise ValueError(f"There is no split named {self.split!r}; known: {', '.join(SPLITS)}.")
        if self.seed < 0 or self.seed + self.episodes > len(SPLITS[self.split]):
            raise ValueError(f"seed {self.seed} + {self.episodes} episodes leave the worlds of split {self.split!r}.")
        if not self.mix or min(self.mix.values()) < 0 or sum(self.mix.values()) <= 0:
            raise ValueError(f"mix must hold weights >= 0 that do not all vanish, not {self.mix}.")
        for name in self.mix:
            parse_task(name)


def parse_task(name: str) -> tuple[str, int]:
    """Splits ``ABA-15`` into task and range; tasks without goals have range 0.

    Raises:
        ValueError: if the name is of no scripted task.
    """
    task, _, reach = name.partition("-")
    if task in FREE_TASKS and not reach:
        return task, 0
    if task in LOOP_TASKS and reach.isdigit() and int(reach) > 0:
        return task, int(reach)
    raise ValueError(f"{name!r} is no task to record; use explore, bump, or ABA-RANGE or ABCA-RANGE such as ABA-15.")


def record(config: RecordConfig, *, factory: WorldFactory = make_world, progress: bool = True) -> EpisodeIndex:
    """Records episodes in parallel until the folder holds ``config.episodes`` of them.

    Each episode depends on the config and its own number alone, so the recordings are the same with any number of workers and after any
    number of interruptions. Episodes that are already there and whole are kept.

    Args:
        config: what to record.
        factory: makes the worlds.
        progress: show a progress bar.

    Returns:
        Index of all episodes in the folder.

    Raises:
        RecordError: if the folder holds recordings of another config, no world had room for an episode, or a worker died.
    """
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    _check_recipe(config)
    entries = {int(entry.stem): entry for entry in _existing(out)}
    missing = [i for i in range(config.episodes) if i not in entries]
    if entries:
        LOGGER.info("%s already holds %d episodes; %d to record.", out, len(entries), len(missing))
    saver = _Saver(out, entries)
    try:
        with _Bar(progress, total=config.episodes, done=config.episodes - len(missing)) as advance:
            for number, entry in _produce(config, factory, missing):
                entries[number] = entry
                advance(entry.frames)
                saver.maybe()
    finally:
        if entries:
            saver.now()
    return EpisodeIndex.open(out)


def _produce(config: RecordConfig, factory: WorldFactory, numbers: list[int]) -> Generator[tuple[int, IndexEntry], None, None]:
    """Records episodes and yields them as they are finished."""
    workers = min(config.workers, len(numbers))
    if workers <= 1:
        world = factory(config.world, frame_size=(config.frame_size, config.frame_size)) if numbers else None
        try:
            for number in numbers:
                assert world is not None
                yield number, _record_number(config, number, world)
        finally:
            if world is not None:
                world.close()
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(config, factory))
    running: dict[Future[IndexEntry], int] = {}
    queue = iter(numbers)
    try:
        while True:
            # Few tasks in flight: a Ctrl-C then loses seconds of work, not minutes.
            for number in queue:
                running[pool.submit(_work, number)] = number
                if len(running) >= 2 * workers:
                    break
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool:
        raise RecordError("A recording process died (out of memory?); continue with the same command and fewer workers.") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker: tuple[RecordConfig, World] | None = None


def _start_worker(config: RecordConfig, factory: WorldFactory) -> None:
    """Prepares one process: a world of its own, one thread, and Ctrl-C left to the parent, which lets running episodes finish."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import cv2
    import numba

    cv2.setNumThreads(1)
    numba.set_num_threads(1)
    _worker = config, factory(config.world, frame_size=(config.frame_size, config.frame_size))


def _work(number: int) -> IndexEntry:
    assert _worker is not None
    config, world = _worker
    return _record_number(config, number, world)


def _record_number(config: RecordConfig, number: int, world: World) -> IndexEntry:
    """Records and writes episode ``number`` of a config."""
    seeds = SPLITS[config.split]
    names = sorted(config.mix)
    weights = np.array([config.mix[name] for name in names])
    name = str(np.random.default_rng([seeds.start + config.seed, number]).choice(names, p=weights / weights.sum()))
    task, nav_range = parse_task(name)
    last: CannotLayTask | None = None
    for attempt in range(_SEEDS_TRIED):
        # Attempts get generators of their own, so one world's trouble never shifts another's chance.
        rng = np.random.default_rng([seeds.start + config.seed, number, attempt])
        seed = seeds[(config.seed + number + attempt) % len(seeds)]
        try:
            episode = record_episode(world, seed=seed, task=task, nav_range=nav_range, rng=rng, explore_steps=config.explore_steps)
        except CannotLayTask as error:
            LOGGER.info("Episode %d: %s Going on with the next seed.", number, error)
            last = error
            continue
        return entry_of(config.out, write_episode(config.out, episode, stem=f"{number:06d}"))
    raise RecordError(f"Episode {number} ({name}) fits in none of {_SEEDS_TRIED} worlds; take {name} out of the mix.") from last


def _existing(out: Path) -> tuple[IndexEntry, ...]:
    """Whole episodes in a folder that carry this recorder's names; half-written and damaged ones are deleted to be recorded again."""
    for path in out.glob("*/*/*/.*"):
        if path.suffix in (".avi", ".json"):
            path.unlink(missing_ok=True)
    try:
        index = EpisodeIndex.build(out, skip_damaged=True)
    except EpisodeMissingError:
        (out / INDEX_NAME).unlink(missing_ok=True)
        return ()
    return tuple(entry for entry in index if entry.stem.isdigit())


class _Saver:
    """Saves the index every so often, so that a kill costs no re-reading of many episodes."""

    def __init__(self, out: Path, entries: dict[int, IndexEntry]) -> None:
        self._out, self._entries, self._last = out, entries, time.monotonic()

    def maybe(self) -> None:
        if time.monotonic() - self._last > _SAVE_SECONDS:
            self.now()

    def now(self) -> None:
        EpisodeIndex(self._out, tuple(self._entries.values())).save()
        self._last = time.monotonic()


def _settings(config: RecordConfig) -> dict[str, Any]:
    """The part of a config that recordings in one folder must share."""
    settings = {name: value for name, value in asdict(config).items() if name not in ("out", "episodes", "workers")}
    settings["mix"] = {name: float(config.mix[name]) for name in sorted(config.mix)}
    return settings


def _check_recipe(config: RecordConfig) -> None:
    """Compares a folder's recipe with the config, and writes it.

    Raises:
        RecordError: if the folder was recorded with other settings, or holds episodes but no recipe.
    """
    path = Path(config.out) / RECIPE_NAME
    settings = _settings(config)
    if path.is_file():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))["config"]
        except (ValueError, KeyError, TypeError):
            raise RecordError(f"{path} is not a recipe; record into another folder.") from None
        other = [name for name in settings if known.get(name) != settings[name]]
        if other:
            told = "; ".join(f"{name} is {known.get(name)} there and {settings[name]} here" for name in other)
            raise RecordError(f"{config.out} holds recordings of other settings ({told}); use them too, or record into another folder.")
    elif any(Path(config.out).glob("*/*/*/*.json")):
        raise RecordError(f"{config.out} holds episodes but no {RECIPE_NAME}, so they were not recorded here; record into another folder.")
    versions = {"python": platform.python_version()}
    for package in ("worldpack-env", "numpy", "numba", "opencv-python"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    recipe = {"config": settings, "episodes": config.episodes, "versions": versions}
    write_atomically(path, json.dumps(recipe, indent=2) + "\n")


class _Bar:
    """Progress bar as a context manager that gives the function to advance it by one episode of so many frames."""

    def __init__(self, show: bool, total: int, done: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("recording"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("episodes, {task.fields[frames]} frames"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            disable=not show,
        )
        self._task = self._progress.add_task("recording", total=total, completed=done, frames=0)
        self._frames = 0

    def __enter__(self) -> Callable[[int], None]:
        self._progress.start()
        return self._advance

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _advance(self, frames: int) -> None:
        self._frames += frames
        self._progress.update(self._task, advance=1, frames=self._frames)
