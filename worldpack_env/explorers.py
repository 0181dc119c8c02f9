"""Scripted explorers: policies that see the true pose and decide step by step.

An explorer is a generator that yields an action and is sent the next :class:`~worldpack_env.worlds.WorldView`, so each decides in a closed
loop and they compose with ``yield from``. Turning varies with a :class:`Style`, from exact 22.5 degree steps, as discrete action sets turn,
to smooth turns of up to 45 degrees a step. Without that variety a model trained on the recordings would only know one way to turn.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldpack_env.worlds import Surface, WorldView
from worldpack_env.worlds.paths import (
    MAX_DROP,
    Cell,
    can_stand,
    cell_of,
    find_path,
    inside,
    nearest_standable,
    path_points,
    point_of,
    walking_costs,
)
from worldpack_model.geometry import ACTION_DIM, DPITCH, DYAW, KEYS, forward_vector, wrap_degrees, yaw_towards

TURN: Final = 22.5
"""Degrees of one step of a look-around, and of a turn in the discrete action sets."""
LOOK_STEPS: Final = 16
"""Steps of a full look-around."""
MAX_TURN: Final = 45.0
"""Greatest turn in one step, in degrees."""
ARRIVAL: Final = 0.9
"""Distance in blocks at which a goal counts as reached (LoopNav: 1)."""

Action = NDArray[np.float32]
Script = Generator[Action, WorldView, bool]
"""Yields actions, is sent what followed, returns whether it did what it was for."""


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
            segment = _turn_by(style, float(rng.uniform(-200, 200)))
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
                view, left, _ = yield from _run(_turn_to(view, style, heading), view, left)
                for _ in range(int(rng.integers(2, 6))):
                    view, left, held = yield from _run(_push(rng, int(rng.integers(4, 10))), view, left)
                    if not held:
                        break
                    if rng.random() < 0.3:
                        continue
                    view, left, _ = yield from _run(_turn_by(style, float(rng.choice([-90, -45, -22.5, 22.5, 45, 90]))), view, left)
        if spot is None or rng.random() < 0.3:
            view, left, _ = yield from _run(_wander(view, surface, style, rng, int(rng.integers(3, 12)), careful=0.3), view, left)
    return True


def stroll(view: WorldView, surface: Surface, style: Style, rng: np.random.Generator, steps: int) -> Script:
    """Walks straight on without knowing what is there, as an agent does that has not learned to look: into walls, up to steps and over edges.

    The other scripts know the ground and hardly ever run into anything. A model taught by them alone believes that nobody does, and an agent that
    learns in it never finds out that a step needs a jump.

    Args:
        view: what is seen now.
        surface: not looked at.
        style: how to turn.
        rng: source of chance.
        steps: number of actions.
    """
    left = steps
    while left > 0:
        view, left, _ = yield from _run(_turn_by(style, float(rng.uniform(-120, 120))), view, left)
        for _ in range(int(rng.integers(1, 4))):  # with and without the jump key in turn, so that the same place shows what it does
            keys = ("forward", "jump") if rng.random() < 0.4 else ("forward",)
            view, left, _ = yield from _run(_straight(style, rng, keys, int(rng.integers(6, 24)), int(rng.integers(1, 7))), view, left)
    return True


def _straight(style: Style, rng: np.random.Generator, keys: tuple[str, ...], steps: int, patience: int) -> Script:
    """Holds ``keys``; gives up after ``patience`` steps against something."""
    stopped = 0
    for _ in range(steps):
        turn = style.turn(float(rng.uniform(-40, 40)), rng) if rng.random() < 0.06 else 0.0
        view = yield make_action(*keys, dyaw=turn)
        stopped = stopped + 1 if view.blocked else 0
        if stopped >= patience:
            return False
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


def _turn_by(style: Style, angle: float) -> Script:
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


def _turn_to(view: WorldView, style: Style, heading: float) -> Script:
    """Turns in place to a yaw in degrees (the nearest that a stepped style can reach)."""
    yield from _turn_by(style, float(wrap_degrees(heading - view.pose[3])))
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
    """Walks ahead against what is there, jumping at random; stops when it gives way for three steps (water, a gap)."""
    side = str(rng.choice(["", "", "", "", "left", "right"]))
    free = 0
    for _ in range(steps):
        keys = ["forward", *([side] if side else []), *(["jump"] if rng.random() < 0.2 else [])]
        view = yield make_action(*keys, dyaw=float(rng.choice([TURN, -TURN])) if rng.random() < 0.08 else 0.0)
        free = 0 if view.blocked else free + 1
        if free >= 3:
            return False
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
