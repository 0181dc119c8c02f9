"""Planning on the walkable surface."""

from __future__ import annotations

import heapq
import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from worldpack_env.worlds import Surface
from worldpack_env.worlds.paths import (
    can_stand,
    cell_of,
    find_path,
    goal_in_ring,
    goals_in_ring,
    nearest_standable,
    path_points,
    point_of,
    shortest_way,
    walking_costs,
    way_length,
)


def ground(rows: list[str], origin: tuple[int, int] = (0, 0)) -> Surface:
    """A surface of digits (heights) and ``#`` (nobody can stand there); rows go along x."""
    heights = np.array([[0 if c == "#" else int(c) for c in row] for row in rows], np.int16)
    return Surface(heights, np.array([[c != "#" for c in row] for row in rows]), origin)


def test_straight_and_around() -> None:
    assert find_path(ground(["000"]), (0, 0), (0, 2)) == [(0, 0), (0, 1), (0, 2)]
    around = find_path(ground(["000", "0#0", "0#0"]), (2, 0), (2, 2))
    assert around == [(2, 0), (1, 0), (0, 0), (0, 1), (0, 2), (1, 2), (2, 2)]
    assert find_path(ground(["0#0"]), (0, 0), (0, 2)) is None
    assert find_path(ground(["000"]), (0, 1), (0, 1)) == [(0, 1)]


def test_outside_or_unwalkable_ends() -> None:
    surface = ground(["0#0"])
    assert find_path(surface, (0, 0), (0, 1)) is None
    assert find_path(surface, (0, 0), (0, 3)) is None
    assert find_path(surface, (-1, 0), (0, 0)) is None


def test_steps_up_and_drops() -> None:
    assert find_path(ground(["01"]), (0, 0), (0, 1)) is not None
    assert find_path(ground(["02"]), (0, 0), (0, 1)) is None
    assert find_path(ground(["30"]), (0, 0), (0, 1)) is not None
    assert find_path(ground(["40"]), (0, 0), (0, 1)) is None
    assert find_path(ground(["30"]), (0, 0), (0, 1), max_drop=1) is None


def test_diagonals_need_both_sides() -> None:
    assert find_path(ground(["00", "00"]), (0, 0), (1, 1)) == [(0, 0), (1, 1)]
    assert find_path(ground(["0#", "00"]), (0, 0), (1, 1)) == [(0, 0), (1, 0), (1, 1)]
    assert find_path(ground(["0#", "#0"]), (0, 0), (1, 1)) is None
    assert find_path(ground(["09", "00"]), (0, 0), (1, 1)) == [(0, 0), (1, 0), (1, 1)]


def test_cost_bound() -> None:
    surface = ground(["0" * 20])
    assert find_path(surface, (0, 0), (0, 19), max_cost=10) is None
    costs = walking_costs(surface, (0, 0), max_cost=10)
    assert costs[0, 10] == 10 and np.isinf(costs[0, 11])


def test_coordinates() -> None:
    surface = ground(["012", "345"], origin=(-7, 4))
    assert cell_of(surface, [-6.01, 9.0, 5.99, 0.0, 0.0]) == (0, 1)
    assert point_of(surface, (1, 2)).tolist() == [-5.5, 5.0, 6.5]
    assert path_points(surface, [(0, 0), (0, 1)]).tolist() == [[-6.5, 0.0, 4.5], [-6.5, 1.0, 5.5]]
    assert not can_stand(surface, (-1, 0)) and can_stand(surface, (1, 2))


def test_nearest_standable() -> None:
    surface = ground(["0##", "###", "###"])
    assert nearest_standable(surface, [2.5, 0.0, 2.5]) == (0, 0)
    assert nearest_standable(surface, [2.5, 0.0, 2.5], radius=1) is None


def hills(seed: int, size: int = 40) -> Surface:
    """Rough ground with holes."""
    rng = np.random.default_rng(seed)
    heights = np.clip(rng.normal(0, 0.9, (size, size)).round(), -3, 3).astype(np.int16)
    return Surface(heights, rng.random((size, size)) > 0.2, (0, 0))


def slow_costs(surface: Surface, start: tuple[int, int], max_drop: int) -> NDArray[np.float64]:
    """Dijkstra in plain Python with the same rules, written separately."""
    h, ok = surface.heights.astype(int), surface.walkable
    cost = np.full(h.shape, np.inf)
    cost[start] = 0
    heap = [(0.0, start)]
    while heap:
        c, (i, j) = heapq.heappop(heap)
        if c > cost[i, j]:
            continue
        for di, dj in itertools.product((-1, 0, 1), repeat=2):
            a, b = i + di, j + dj
            if (di, dj) == (0, 0) or not (0 <= a < h.shape[0] and 0 <= b < h.shape[1]) or not ok[a, b]:
                continue
            if not -max_drop <= h[a, b] - h[i, j] <= 1:
                continue
            if di and dj:
                sides = [(i, b), (a, j)]
                top, low = max(h[a, b], h[i, j]), min(h[a, b], h[i, j])
                if not all(ok[s] and low - 1 <= h[s] <= top for s in sides):
                    continue
            new = c + (1.6 if di and dj else 1.0) + (0.5 if h[a, b] != h[i, j] else 0.0)
            if new < cost[a, b] - 1e-9:
                cost[a, b] = new
                heapq.heappush(heap, (new, (a, b)))
    return cost


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("max_drop", [1, 3])
def test_agrees_with_a_plain_dijkstra(seed: int, max_drop: int) -> None:
    surface = hills(seed)
    start = (int(np.argwhere(surface.walkable)[0][0]), int(np.argwhere(surface.walkable)[0][1]))
    slow = slow_costs(surface, start, max_drop)
    np.testing.assert_allclose(walking_costs(surface, start, max_drop=max_drop), slow, rtol=1e-4)
    rng = np.random.default_rng(seed)
    for i, j in rng.integers(0, 40, (25, 2)):
        goal = (int(i), int(j))
        path = find_path(surface, start, goal, max_drop=max_drop)
        assert (path is None) == (not np.isfinite(slow[goal]))
        if path is None:
            continue
        assert path[0] == start and path[-1] == goal
        total = 0.0
        for (i0, j0), (i1, j1) in itertools.pairwise(path):
            rise = int(surface.heights[i1, j1]) - int(surface.heights[i0, j0])
            assert max(abs(i1 - i0), abs(j1 - j0)) == 1 and -max_drop <= rise <= 1
            total += (1.6 if i0 != i1 and j0 != j1 else 1.0) + (0.5 if rise else 0.0)
        assert total == pytest.approx(slow[goal], rel=1e-4)


def test_what_is_walked_with_drops_of_one_can_be_walked_back() -> None:
    surface = hills(7)
    start = (int(np.argwhere(surface.walkable)[0][0]), int(np.argwhere(surface.walkable)[0][1]))
    reached = np.argwhere(np.isfinite(walking_costs(surface, start, max_drop=1)))
    for i, j in reached[:: max(1, len(reached) // 20)]:
        assert find_path(surface, (int(i), int(j)), start, max_drop=1) is not None


@pytest.mark.parametrize("nav_range", [5, 15])
def test_goals_follow_loopnavs_rule(nav_range: int) -> None:
    surface = Surface(np.zeros((60, 60), np.int16), np.ones((60, 60), bool), (0, 0))
    surface.walkable[:, 35:] = False
    surface.heights[:20] = 11
    surface.heights[20] = 5  # a cliff
    start = (30, 30)
    cells = goals_in_ring(surface, start, nav_range)
    away = np.abs(cells - start).max(axis=1)
    assert len(cells) and away.max() == nav_range and away.min() == int(np.ceil(0.8 * nav_range))
    assert cells[:, 1].max() < 35 and cells[:, 0].min() > 20
    drawn = {goal_in_ring(surface, start, nav_range, np.random.default_rng(s)) for s in range(30)}
    assert len(drawn) > 10 and drawn <= {(int(i), int(j)) for i, j in cells}


def test_no_goal_on_an_island() -> None:
    surface = Surface(np.zeros((60, 60), np.int16), np.zeros((60, 60), bool), (0, 0))
    surface.walkable[28:33, 28:33] = True
    surface.walkable[10:15] = True
    assert goal_in_ring(surface, (30, 30), 15, np.random.default_rng(0)) is None


def length(rows: list[str], begin: tuple[float, float], end: tuple[float, float], **options: int) -> float | None:
    way = shortest_way(ground(rows, (10, -5)), (begin[0] + 10, 0, begin[1] - 5), (end[0] + 10, 0, end[1] - 5), **options)
    if way is None:
        return None
    assert way[0] == pytest.approx((begin[0] + 10, begin[1] - 5)) and way[-1] == pytest.approx((end[0] + 10, end[1] - 5))
    return way_length(way)


def test_the_shortest_way_is_straight_where_a_body_can_walk_straight() -> None:
    plain = ["0" * 12] * 12
    assert length(plain, (0.7, 0.6), (11.2, 5.3)) == pytest.approx(np.hypot(10.5, 4.7)), "not by 45 degrees, and from where it stands"
    assert length(["111110000011111"], (0.5, 0.5), (0.5, 14.5)) is not None
    stairs = ["0" * 4, "1" * 4, "2" * 4, "0" * 4]
    assert length(stairs, (0.5, 0.5), (3.5, 3.5)) == pytest.approx(np.hypot(3, 3)), "up by one, down by two"
    assert length(stairs, (3.5, 0.5), (0.5, 3.5)) is None, "up by two"
    assert length(stairs, (0.5, 0.5), (3.5, 3.5), max_drop=1) is None


def test_the_shortest_way_goes_round_what_is_in_the_way() -> None:
    wall = ["000000000", "000000000", "0000#0000", "0000#0000", "0000#0000"]
    found = length(wall, (4.5, 0.5), (4.5, 8.5))
    assert found is not None
    best = 2 * np.hypot(4.5 - (2 - 0.3), (4 - 0.3) - 0.5) + (1 + 2 * 0.3)  # past the wall's end by half a body
    assert best <= found < best + 0.5
    holes = ["00000", "0###0", "00000"]
    assert length(holes, (0.5, 2.5), (2.5, 2.5)) == pytest.approx(2 * np.hypot(2, 0) + 2, abs=0.6)
    assert length(["0#0"], (0.5, 0.5), (0.5, 2.5)) is None


def test_no_way_is_shorter_than_a_straight_line_or_longer_than_the_grids() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        heights = rng.integers(0, 3, (14, 14)).astype(np.int16)
        surface = Surface(heights, rng.random((14, 14)) < 0.85, (0, 0))
        begin, end = (1, 1), (12, int(rng.integers(14)))
        way, cells = shortest_way(surface, point_of(surface, begin), point_of(surface, end)), find_path(surface, begin, end, shortest=True)
        assert (way is None) == (cells is None)
        if way is not None and cells is not None:
            grid = way_length(path_points(surface, cells)[:, [0, 2]])
            assert np.hypot(*(way[-1] - way[0])) - 1e-9 <= way_length(way) <= grid + 1e-9
