"""Ways over a world's walkable surface: A*, what can be reached, and LoopNav's rule for placing goals.

Planning happens on the block grid of a :class:`~worldpack_env.worlds.Surface`: a *cell* is an index pair ``(i, j)`` into its arrays, a
*point* the feet position ``(x, y, z)`` at a cell's centre. A move goes to one of the 8 neighbours, up by at most one block and down by at
most ``max_drop``; a diagonal needs both cells beside it to be free at a height that a walker's shoulders pass, and costs a little more than
its length, as in LoopNav's path finder.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from worldpack_env.worlds import Surface

Cell = tuple[int, int]
MAX_DROP: Final = 3
"""Blocks a walker may fall in one move without being hurt (Minecraft)."""
GOAL_MAX_RISE: Final = 10
"""Greatest height difference of start and goal in LoopNav, in blocks."""
_SAMPLE: Final = 0.1
"""Blocks between the places of a straight way that are looked at."""
_HALF_WIDTH: Final = 0.3
"""Of a body, in blocks (Minecraft)."""
_DIAGONAL_COST: Final = 1.6
_STEP_UP_COST: Final = 0.5


@njit(cache=True)
def _search(
    heights: NDArray[np.int16], walkable: NDArray[np.bool_], start: int, goal: int, max_drop: int, max_cost: float, diagonal: float, step_up: float
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:  # pragma: no cover - compiled
    """A* from ``start`` to ``goal``, or a flood of everything within ``max_cost`` when ``goal`` is -1.

    Returns ``(X * Z,)`` arrays: cost of the way to each closed cell (inf elsewhere), and the cell it was entered from (-1 for none).
    """
    nx, nz = heights.shape
    size = nx * nz
    cost = np.full(size, np.inf, np.float32)
    done = np.zeros(size, np.bool_)
    parent = np.full(size, -1, np.int32)
    # A binary heap of (priority, cell) in two arrays; each cell can be pushed once for each of its 8 neighbours.
    keys = np.empty(1024, np.float32)
    cells = np.empty(1024, np.int32)
    count = 1
    keys[0] = 0.0
    cells[0] = start
    cost[start] = 0.0
    gi, gj = goal // nz, goal % nz
    while count > 0:
        here = cells[0]
        count -= 1
        last_key, last_cell = keys[count], cells[count]
        at = 0
        while True:
            child = 2 * at + 1
            if child >= count:
                break
            if child + 1 < count and keys[child + 1] < keys[child]:
                child += 1
            if keys[child] >= last_key:
                break
            keys[at], cells[at] = keys[child], cells[child]
            at = child
        keys[at], cells[at] = last_key, last_cell
        if done[here]:
            continue
        done[here] = True
        if here == goal:
            break
        i, j = here // nz, here % nz
        height = heights[i, j]
        for di in range(-1, 2):
            for dj in range(-1, 2):
                a, b = i + di, j + dj
                if (di == 0 and dj == 0) or a < 0 or b < 0 or a >= nx or b >= nz or not walkable[a, b]:
                    continue
                there = a * nz + b
                rise = heights[a, b] - height
                if done[there] or rise > 1 or -rise > max_drop:
                    continue
                move = 1.0
                if di != 0 and dj != 0:
                    # A body is 0.6 wide: it needs both side columns walkable and not above the higher end of the move,
                    # nor so far below that it would fall while it cuts the corner.
                    top = max(heights[a, b], height)
                    low = min(heights[a, b], height)
                    if not (walkable[i, b] and walkable[a, j]):
                        continue
                    if heights[i, b] > top or heights[a, j] > top or heights[i, b] < low - 1 or heights[a, j] < low - 1:
                        continue
                    move = diagonal
                if rise != 0:
                    move += step_up
                total = cost[here] + move
                if total >= cost[there] or total > max_cost:
                    continue
                cost[there] = total
                parent[there] = here
                key = total
                if goal >= 0:
                    u, v = abs(gi - a), abs(gj - b)
                    key += max(u, v) + (diagonal - 1.0) * min(u, v)
                if count == len(keys):
                    keys = np.concatenate((keys, np.empty(count, np.float32)))
                    cells = np.concatenate((cells, np.empty(count, np.int32)))
                at = count
                count += 1
                while at > 0 and keys[(at - 1) // 2] > key:
                    up = (at - 1) // 2
                    keys[at], cells[at] = keys[up], cells[up]
                    at = up
                keys[at], cells[at] = key, there
    for k in range(size):
        if not done[k]:
            cost[k] = np.inf
    return cost, parent


def cell_of(surface: Surface, point: ArrayLike) -> Cell:
    """Cell under a position ``(>= 3,)`` (x, y, z, ...); may lie outside the surface."""
    p = np.asarray(point, np.float64)
    return int(np.floor(p[0])) - surface.origin[0], int(np.floor(p[2])) - surface.origin[1]


def point_of(surface: Surface, cell: Cell) -> NDArray[np.float64]:
    """Feet position ``(3,)`` in blocks at the centre of a cell."""
    i, j = cell
    return np.array([surface.origin[0] + i + 0.5, float(surface.heights[i, j]), surface.origin[1] + j + 0.5])


def inside(surface: Surface, cell: Cell) -> bool:
    """True if the surface has this cell."""
    rows, columns = surface.heights.shape
    return bool(0 <= cell[0] < rows and 0 <= cell[1] < columns)


def can_stand(surface: Surface, cell: Cell) -> bool:
    """True if the surface has this cell and a player can stand on it."""
    return inside(surface, cell) and bool(surface.walkable[cell])


def nearest_standable(surface: Surface, point: ArrayLike, radius: int = 3) -> Cell | None:
    """The walkable cell nearest to a position, at most ``radius`` cells away; None if there is none."""
    i, j = cell_of(surface, point)
    p = np.asarray(point, np.float64)
    best: tuple[float, Cell] | None = None
    for a in range(i - radius, i + radius + 1):
        for b in range(j - radius, j + radius + 1):
            if can_stand(surface, (a, b)):
                distance = float(np.linalg.norm(point_of(surface, (a, b)) - p[:3]))
                if best is None or distance < best[0]:
                    best = (distance, (a, b))
    return None if best is None else best[1]


def find_path(
    surface: Surface, start: Cell, goal: Cell, *, max_drop: int = MAX_DROP, max_cost: float = np.inf, shortest: bool = False
) -> list[Cell] | None:
    """The cheapest way from one cell to another.

    Args:
        surface: walkable surface of the world.
        start: cell to start from (need not be walkable: a player may stand on an edge).
        goal: cell to reach.
        max_drop: greatest fall in one move in blocks; 1 gives ways that can also be walked back.
        max_cost: give up beyond this cost (about blocks walked).
        shortest: count lengths alone, not how comfortable a way is.

    Returns:
        Cells from start to goal, both included, or None if there is no way.
    """
    if not inside(surface, start) or not can_stand(surface, goal):
        return None
    nz = surface.heights.shape[1]
    target = goal[0] * nz + goal[1]
    costs = (math.sqrt(2.0), 0.0) if shortest else (_DIAGONAL_COST, _STEP_UP_COST)
    _, parent = _search(*_arrays(surface), start[0] * nz + start[1], target, max_drop, float(max_cost), *costs)
    cells = [target]
    while cells[-1] != start[0] * nz + start[1]:
        if parent[cells[-1]] < 0:
            return None
        cells.append(int(parent[cells[-1]]))
    return [(c // nz, c % nz) for c in reversed(cells)]


def find_spawn(surface: Surface) -> NDArray[np.float64]:
    """Start pose ``(5,)``: the open 3 x 3 place nearest to (0, 0), looking along the axis one can walk furthest (at most 12 blocks)."""
    heights, walkable = surface.heights.astype(np.int64), surface.walkable
    flat = walkable.copy()
    for dx in (-1, 0, 1):
        for dz in (-1, 0, 1):
            flat &= np.roll(walkable, (dx, dz), (0, 1)) & (np.roll(heights, (dx, dz), (0, 1)) == heights)
    places = np.argwhere(flat if flat.any() else walkable)
    centre = np.array([-surface.origin[0], -surface.origin[1]])
    i, k = (int(v) for v in places[np.argmin(((places - centre) ** 2).sum(axis=1))])
    best, best_yaw = -1, 0.0
    for yaw, dx, dz in ((0.0, 0, 1), (90.0, -1, 0), (-180.0, 0, -1), (-90.0, 1, 0)):
        reach, x, z = 0, i, k
        while reach < 12 and walkable[x + dx, z + dz] and abs(heights[x + dx, z + dz] - heights[x, z]) <= 1:
            reach, x, z = reach + 1, x + dx, z + dz
        if reach > best:
            best, best_yaw = reach, yaw
    return np.array([i + surface.origin[0] + 0.5, float(heights[i, k]), k + surface.origin[1] + 0.5, best_yaw, 0.0])


def walking_costs(surface: Surface, start: Cell, *, max_drop: int = MAX_DROP, max_cost: float = np.inf) -> NDArray[np.float32]:
    """Cost ``(X, Z) float32`` (about blocks walked) of the way from ``start`` to every cell; inf where there is none in ``max_cost``."""
    nz = surface.heights.shape[1]
    cost, _ = _search(*_arrays(surface), start[0] * nz + start[1], -1, max_drop, float(max_cost), _DIAGONAL_COST, _STEP_UP_COST)
    grid: NDArray[np.float32] = cost.reshape(surface.heights.shape)
    return grid


def path_points(surface: Surface, cells: list[Cell]) -> NDArray[np.float64]:
    """Feet positions ``(n, 3)`` at the centres of cells."""
    return np.stack([point_of(surface, cell) for cell in cells])


@njit(cache=True)
def _free(
    heights: NDArray[np.int16], walkable: NDArray[np.bool_], begin: NDArray[np.float64], end: NDArray[np.float64], max_drop: int
) -> bool:  # pragma: no cover - compiled
    """Whether a body can walk straight from ``begin`` to ``end`` (x, z in cells): ground under all of it, no step above a block, no deep fall."""
    nx, nz = heights.shape
    dx, dz = end[0] - begin[0], end[1] - begin[1]
    count = int(np.ceil(np.hypot(dx, dz) / _SAMPLE)) + 1
    nothing = np.iinfo(np.int16).min
    floor = nothing
    for k in range(count + 1):
        x, z = begin[0] + dx * k / count, begin[1] + dz * k / count
        top = nothing
        for i in range(int(np.floor(x - _HALF_WIDTH)), int(np.floor(x + _HALF_WIDTH)) + 1):
            for j in range(int(np.floor(z - _HALF_WIDTH)), int(np.floor(z + _HALF_WIDTH)) + 1):
                if i < 0 or j < 0 or i >= nx or j >= nz:
                    return False
                if not walkable[i, j]:
                    # a body that stands partly over something that it cannot walk on may still leave
                    if abs(i + 0.5 - begin[0]) < 0.5 + _HALF_WIDTH and abs(j + 0.5 - begin[1]) < 0.5 + _HALF_WIDTH:
                        continue
                    return False
                top = max(top, heights[i, j])
        if top == nothing:
            continue
        if floor != nothing and (top - floor > 1 or floor - top > max_drop):
            return False
        floor = top
    return True


def shortest_way(surface: Surface, start: ArrayLike, goal: ArrayLike, *, max_drop: int = MAX_DROP) -> NDArray[np.float64] | None:
    """The shortest way that is known from one position to another: A*'s over the grid, pulled tight where a body can walk straight.

    Grid ways turn by 45 degrees only and prefer level ground, so bodies that walk freely undercut them, by up to a quarter.

    Args:
        surface: walkable surface of the world.
        start: feet position (x, y, z, ...).
        goal: feet position (x, y, z, ...).
        max_drop: greatest fall in one move in blocks.

    Returns:
        Corners ``(n, 2)`` (x, z) from start to goal, both included, or None if there is no way.
    """
    origin, arrays = np.array(surface.origin, np.float64), _arrays(surface)
    ends = [np.asarray(point, np.float64)[[0, 2]] - origin for point in (start, goal)]
    ways = []
    for shortest in (True, False):  # neither is always the shorter one when it is pulled
        cells = find_path(surface, cell_of(surface, start), cell_of(surface, goal), max_drop=max_drop, shortest=shortest)
        if cells is None:
            return None
        points = np.stack([ends[0], *(np.array(cell) + 0.5 for cell in cells[1:-1]), ends[1]])
        kept, here = [0], 0
        while here < len(points) - 1:
            there = len(points) - 1
            while there > here + 1 and not _free(*arrays, points[here], points[there], max_drop):
                there -= 1
            kept.append(there)
            here = there
        ways.append(points[kept])
    return min(ways, key=way_length) + origin


def way_length(points: NDArray[np.float64]) -> float:
    """Length in blocks of a way over ground through points ``(n, 2)``."""
    return float(np.hypot(*np.diff(points, axis=0).T).sum())


def goals_in_ring(surface: Surface, start: Cell, nav_range: int, *, max_drop: int = MAX_DROP) -> NDArray[np.intp]:
    """Cells ``(n, 2)`` that LoopNav's rule allows as goals; see :func:`goal_in_ring`."""
    # A way of more than 2.5 ranges is a maze, not a goal in sight; it also bounds the flood.
    costs = walking_costs(surface, start, max_drop=max_drop, max_cost=2.5 * nav_range + 10)
    along_x = np.abs(np.arange(costs.shape[0]) - start[0])[:, None]
    along_z = np.abs(np.arange(costs.shape[1]) - start[1])[None, :]
    away = np.maximum(along_x, along_z)
    rise = np.abs(surface.heights.astype(np.int32) - int(surface.heights[start]))
    good = np.isfinite(costs) & surface.walkable & (away <= nav_range) & (away >= 0.8 * nav_range) & (rise <= GOAL_MAX_RISE)
    return np.argwhere(good)


def goal_in_ring(surface: Surface, start: Cell, nav_range: int, rng: np.random.Generator, *, max_drop: int = MAX_DROP) -> Cell | None:
    """A random goal by LoopNav's rule.

    In the square of half-width ``nav_range`` around the start, at least ``0.8 * nav_range`` away (the larger of |dx| and |dz|), at most 10
    blocks higher or lower, walkable, and with a way to it.

    Args:
        surface: walkable surface of the world.
        start: cell to start from.
        nav_range: LoopNav's range in blocks.
        rng: source of chance.
        max_drop: greatest fall in one move in blocks; 1 gives goals that can also be walked back from.

    Returns:
        A cell, or None if there is none.
    """
    cells = goals_in_ring(surface, start, nav_range, max_drop=max_drop)
    if len(cells) == 0:
        return None
    cell = cells[rng.integers(len(cells))]
    return int(cell[0]), int(cell[1])


def _arrays(surface: Surface) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """The surface's arrays in the one layout the compiled search is made for."""
    return np.ascontiguousarray(surface.heights, np.int16), np.ascontiguousarray(surface.walkable, np.bool_)
