"""Rewards, success and SPL in literal numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.worldpack_env.fakes import make_start
from worldpack_env.goals import GoalView
from worldpack_env.tasks import CELL, CELLS, Explore, Find, GoTo, LoopNav, Navigate, default_step_limit, make_task, spl
from worldpack_model.geometry import from_local, wrap_degrees


def at(*points: tuple[float, float], y: float = 64.0) -> np.ndarray:
    """Poses at (x, z)."""
    return np.array([[x, y, z, 0.0, 0.0] for x, z in points])


def test_goto_rewards_progress_arrival_and_haste() -> None:
    task = GoTo()
    state = task.begin([make_start(goals=[(0, 5)])])
    assert state.distance.tolist() == [5.0]
    state, step = task.step(state, at((0, 1)))
    assert step.reward == pytest.approx([0.1 * 1 - 0.01])
    assert not step.terminated[0]
    state, step = task.step(state, at((0, 0)))  # back again
    assert step.reward == pytest.approx([-0.1 - 0.01])
    state, step = task.step(state, at((0, 2.9)))
    assert step.reward == pytest.approx([0.29 - 0.01])
    assert not step.success[0]
    state, step = task.step(state, at((0, 3.0)))  # exactly the radius of 2 counts
    assert step.reward == pytest.approx([0.01 + 1.0 - 0.01])
    assert step.success.tolist() == step.terminated.tolist() == [True]
    assert state.subgoal.tolist() == [1]
    assert state.distance == pytest.approx([2.0])


def test_explore_pays_for_every_square_of_ground_once() -> None:
    task = Explore()
    state = task.begin([make_start(goals=[(0, 5)]), make_start(goals=[(0, 5)])])
    rewards = []
    for point in [(0, 1.9), (0, 2.1), (0, 1.0), (-0.1, 2.5), (0, 2.1)]:  # the start's square again, new, old, new, old
        state, step = task.step(state, at(point, (0, 0)))
        rewards.append(step.reward.tolist())
        assert not step.terminated.any()
        assert not step.success.any()
    assert np.array(rewards) == pytest.approx(np.array([[-0.01, -0.01], [0.09, -0.01], [-0.01, -0.01], [0.09, -0.01], [-0.01, -0.01]]))
    assert state.subgoal.tolist() == [2, 0]
    assert state.distance == pytest.approx([2.1, 0])
    assert task.shortest(make_start(goals=[(0, 5)])) == 0


def test_explore_pays_nothing_beyond_its_squares() -> None:
    task = Explore()
    edge = CELL * CELLS / 2
    state = task.begin([make_start(goals=[(0, 5)])])
    for point, new in [((edge - 0.1, 0), 1), ((edge + 0.1, 0), 0), ((edge + 1e6, 0), 0), ((-edge, -edge), 1), ((-edge - 0.1, 0), 0)]:
        state, step = task.step(state, at(point))
        assert step.reward == pytest.approx([0.1 * new - 0.01])
    assert state.subgoal.tolist() == [2]


def test_find_ends_with_the_event_it_waits_for() -> None:
    task = make_task("find", event="cactus")
    assert isinstance(task, Find) and (task.name, task.event, task.goal_obs) == ("find", "cactus", ("none",))
    assert make_task("find").event == "log" and make_task("explore").event is None
    start = make_start()
    state = task.begin([start, start])
    assert state.event.tolist() == [False, False]
    state.hear(None, np.array([False, False]))  # the first view
    state.hear(None, np.array([True, False]))
    state, step = task.step(state, at((3, 4), (0, 0)))
    assert step.reward == pytest.approx([0.99, -0.01])
    assert step.terminated.tolist() == step.success.tolist() == [True, False] and state.subgoal.tolist() == [1, 0]
    assert state.distance.tolist() == [5.0, 0.0] and task.shortest(start) == 0.0
    assert [task.standing(state.take([row])) for row in (0, 1)] == ["cactus found", "cactus not found yet"]
    assert make_task("explore").standing(state) == "1 new squares" and GoTo().standing(state) is None
    state.hear(None, np.array([False, True]))
    assert task.step(state, at((3, 4), (0, 0)))[1].success.tolist() == [False, True]
    state = task.begin([start])
    for there, found in ((True, False), (True, False), (False, False), (True, True)):  # seen from the first view on, lost, found
        state.hear(None, np.array([there]))
        state, step = task.step(state, at((0, 0)))
        assert step.success.tolist() == [found]
    with pytest.raises(ValueError, match="name of an event"):
        Find("")


def test_navigate_hands_on_what_the_engine_says() -> None:
    task, start = make_task("navigate-dense"), make_start()
    assert isinstance(task, Navigate) and task.mission == "navigate-dense" and make_task("navigate").mission == "navigate"
    state = task.begin([start, start, start])
    compass = GoalView("compass", (64, 64))
    state.hear(np.array([[0.0, 0, 0, -90.0, 64.0], [100.5, 1, 1, 20.0, 9.0], [-1.5, 1, 0, 0.0, np.nan]]))
    assert state.compass is not None and compass.observe(state, np.zeros((3, 5)), [start] * 3)["compass"].tolist() == [[-90.0], [20.0], [0.0]]
    after, step = task.step(state, np.zeros((3, 5)))
    assert step.reward.tolist() == [0.0, 100.5, -1.5]
    assert step.terminated.tolist() == [False, True, True] and step.success.tolist() == [False, True, False]
    assert after.subgoal.tolist() == [0, 1, 0] and after.distance[:2].tolist() == [64.0, 9.0]
    assert after.take([1]).compass == 20.0 and task.shortest(start) == 64.0
    other = GoTo().begin([make_start(goals=[(0, 5)])])
    other.hear(np.ones((1, 5)))
    assert other.compass is None, "tasks of poses alone do not listen"


def test_height_does_not_count() -> None:
    task = GoTo()
    _, step = task.step(task.begin([make_start(goals=[(0, 5)])]), at((0, 4), y=80.0))
    assert step.success.tolist() == [True]


def test_loop_visits_goals_in_order() -> None:
    task = LoopNav("ABCA")
    state = task.begin([make_start(goals=[(0, 6), (6, 0), (0, 0)])])
    state, step = task.step(state, at((6, 0)))  # C before B does not count
    assert state.subgoal.tolist() == [0]
    assert step.reward == pytest.approx([0.1 * (6 - np.hypot(6, 6)) - 0.01])
    state, step = task.step(state, at((0, 5)))
    assert state.subgoal.tolist() == [1]
    assert step.reward == pytest.approx([0.1 * (np.hypot(6, 6) - 1) + 1 - 0.01])
    assert state.distance == pytest.approx([np.hypot(6, 5)])  # now to C
    state, step = task.step(state, at((6, 0)))
    assert step.reward == pytest.approx([0.1 * np.hypot(6, 5) + 1 - 0.01])
    assert (state.subgoal.tolist(), step.success.tolist()) == ([2], [False])
    state, step = task.step(state, at((0, 0)))
    assert (state.subgoal.tolist(), step.success.tolist()) == ([3], [True])


def test_turn_start_has_only_the_way_home_left() -> None:
    task = LoopNav("ABA")
    state = task.begin([make_start(goals=[(0, 6), (0, -4)], mode="turn")])
    assert state.subgoal.tolist() == [1]
    assert state.distance.tolist() == [4.0]
    _, step = task.step(state, at((0, -2)))
    assert step.success.tolist() == [True]


def test_rows_are_independent() -> None:
    task = LoopNav("ABA")
    starts = [make_start(goals=[(0, 5), (0, 0)]), make_start(goals=[(5, 0), (0, 0)]), make_start(goals=[(9, 9), (0, 0)])]
    poses = at((0, 4), (1, 1), (8, 8))
    state, step = task.step(task.begin(starts), poses)
    for i, start in enumerate(starts):
        alone, alone_step = task.step(task.begin([start]), poses[i : i + 1])
        assert alone.distance[0] == state.distance[i]
        assert alone.subgoal[0] == state.subgoal[i]
        assert alone_step.reward[0] == step.reward[i]
    assert state.subgoal.tolist() == [1, 0, 1]


def test_take_and_put_copy() -> None:
    task = LoopNav("ABA")
    state = task.begin([make_start(goals=[(0, 5), (0, 0)]), make_start(goals=[(0, 9), (0, 0)])])
    row = state.take([1])
    row.distance[0] = -1
    assert state.distance.tolist() == [5.0, 9.0]
    state.put([0], row)
    assert state.distance.tolist() == [-1.0, 9.0]
    assert state.goals[0].tolist() == state.goals[1].tolist()


@pytest.mark.parametrize(
    ("success", "shortest", "walked", "value"),
    [(True, 10, 10, 1.0), (True, 10, 20, 0.5), (True, 10, 8, 1.0), (False, 10, 10, 0.0), (True, 1, 4, 0.25), (True, 0, 0, 1.0)],
)
def test_spl(success: bool, shortest: float, walked: float, value: float) -> None:
    assert spl(success, shortest, walked) == pytest.approx(value)


def test_shortest_counts_the_radius_once_for_each_end_of_a_leg() -> None:
    assert GoTo().shortest(make_start(goals=[(0, 10)])) == pytest.approx(10 - 2)
    assert LoopNav("ABA").shortest(make_start(goals=[(0, 10), (0, 0)])) == pytest.approx(20 - 6)
    assert LoopNav("ABA").shortest(make_start(goals=[(0, 10), (0, -8)], mode="turn")) == pytest.approx(8 - 2)
    assert LoopNav("ABA").shortest(make_start(goals=[(0, 3), (0, 0)])) == 1.0


def test_step_limits() -> None:
    # 3 * (1.5 * 15 / 0.8636 + 16), and with two and four ranges.
    assert default_step_limit("AB", nav_range=15) == 127
    assert default_step_limit("ABA", nav_range=15) == 253
    assert default_step_limit("ABCA", nav_range=15) == 457
    assert default_step_limit("ABCA", nav_range=15, mode="turn") == 127


@pytest.mark.parametrize(
    ("x", "z", "degrees"),
    [(0, 9, 0), (-9, 0, 90), (9, 0, -90), (-5, 5, 45), (0, -9, 180)],  # facing +z, -x is to the right
)
def test_compass_and_vector(x: float, z: float, degrees: float) -> None:
    start = make_start(goals=[(x, z)])
    state, poses = GoTo().begin([start]), at((0, 0))
    compass = GoalView("compass", (40, 40)).observe(state, poses, [start])["compass"]
    assert compass.shape == (1, 1)
    assert compass.dtype == np.float32
    assert abs(float(wrap_degrees(compass[0, 0] - degrees))) == pytest.approx(0, abs=1e-4)
    vector = GoalView("vector", (40, 40)).observe(state, poses, [start])["vector"][0]
    np.testing.assert_allclose(from_local(vector.astype(np.float64), 0.0), [x, 0, z], atol=1e-5)


def test_compass_turns_with_the_agent() -> None:
    start = make_start(goals=[(0, 9)])
    poses = at((0, 0))
    poses[0, 3] = 30.0  # turned to the right, so the goal is to the left
    assert GoalView("compass", (40, 40)).observe(GoTo().begin([start]), poses, [start])["compass"] == pytest.approx(-30.0)


def test_vectors_are_clipped_to_the_space() -> None:
    start = make_start(goals=[(0, 5000)])
    view = GoalView("vector", (40, 40))
    value = view.observe(GoTo().begin([start]), at((0, 0)), [start])["vector"][0]
    assert value.tolist() == [0, 0, 512]
    assert view.spaces["vector"].contains(value)


def test_image_goal_is_the_current_waypoint() -> None:
    task, start = LoopNav("ABA"), make_start(goals=[(0, 5), (0, 0)])
    view = GoalView("image", (40, 40))
    state = task.begin([start])
    assert view.observe(state, at((0, 0)), [start])["goal_image"][0, 9, 9, 0] == 201
    state, _ = task.step(state, at((0, 4)))
    assert view.observe(state, at((0, 4)), [start])["goal_image"][0, 9, 9, 0] == 202
    state, _ = task.step(state, at((0, 0)))  # all reached: the last stays
    assert view.observe(state, at((0, 0)), [start])["goal_image"][0, 9, 9, 0] == 202


def test_what_tasks_refuse() -> None:
    with pytest.raises(ValueError, match="no way home"):
        GoTo().begin([make_start(mode="turn")])
    with pytest.raises(ValueError, match="2 waypoints, the loop ABA needs 3"):
        LoopNav("ABA").begin([make_start()])
    with pytest.raises(ValueError, match="no loop named 'ABC'.*ABCA"):
        LoopNav("ABC")
    with pytest.raises(ValueError, match="radius"):
        LoopNav("ABA", radius=0)
    with pytest.raises(ValueError, match="no task named 'gto'.*goto"):
        make_task("gto")
    with pytest.raises(ValueError, match="no goal observation named 'compas'.*compass"):
        GoalView("compas", (40, 40))


def test_starts_of_shorter_loops_are_walked_as_what_they_are() -> None:
    task = LoopNav("ABCA", shorter=True)
    short, long = make_start(goals=((0.0, 5.0),)), make_start(goals=((0.0, 5.0), (5.0, 5.0), (0.0, 0.0)))
    state = task.begin([short, long])
    assert state.count.tolist() == [1, 3]
    assert state.goals[0].tolist() == [[0, 64, 5]] * 3, "padded with its last goal"
    there = np.array([[0.0, 64, 4, 0, 0], [0.0, 64, 4, 0, 0]])
    state, step = task.step(state, there)
    assert step.success.tolist() == step.terminated.tolist() == [True, False]
    assert step.reward == pytest.approx([0.1 * 4 + 1.0 - 0.01] * 2), "a goal is worth the same in both"
    assert state.target()[1].tolist() == [5, 64, 5]
    assert task.shortest(replace(short, shortest=5.0)) == GoTo().shortest(replace(short, shortest=5.0))
    home = task.begin([replace(make_start(goals=((0.0, 5.0), (0.0, 0.0))), mode="turn")])
    assert home.subgoal.tolist() == [1], "only the way home is left"
