"""The rendered picture holds what it says it holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from tests.worldpack_env.fakes import FakeModel, make_bank, make_start
from worldpack_env.actions import make_action_set
from worldpack_env.imagination import Imagination
from worldpack_env.rendering import HEADER, STRIP, THUMB, History, compose
from worldpack_env.rollout import Rollout
from worldpack_env.starts import Start
from worldpack_env.tasks import make_task
from worldpack_env.vector_env import NavVectorEnv

NONE = np.zeros(0, np.int64)


def picture(start: Start, *, history: History | None = None, **changes: Any) -> np.ndarray:
    """A picture of the first frame of a start."""
    settings: dict[str, Any] = {
        "frame": start.frames[-1],
        "pose": start.poses[-1],
        "history": history or History.begin(start, start.frames[-1]),
        "start": start,
        "subgoal": 0,
        "distance": 5.0,
        "retrieved": NONE,
        "title": "loop-ABA",
        "step": 0,
        "limit": 100,
    }
    return compose(**{**settings, **changes})


@pytest.mark.parametrize(
    ("frame_size", "height", "width"), [((40, 40), 256, 256), ((64, 64), 256, 256), ((64, 96), 256, 384), ((361, 360), 360, 360)]
)
def test_size_depends_on_the_frame_alone(frame_size: tuple[int, int], height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (2, *frame_size, 3), dtype=np.uint8)
    base = make_start(context=2, goals=[(0, 5), (0, 0)])
    start = Start("counting", 0, frames, base.poses, base.actions, base.waypoints, 5)
    shapes = {picture(start, subgoal=i, retrieved=r).shape for i in range(3) for r in (NONE, np.array([0, 1, -1]))}
    assert shapes == {(HEADER + height + STRIP, width + height, 3)}
    assert all(side % 2 == 0 for side in next(iter(shapes))[:2])


def test_the_view_is_enlarged_without_smoothing() -> None:
    start = make_start()
    frame = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    view = picture(start, frame=frame)[HEADER : HEADER + 256, :256]
    rows = view[:160]  # above the goal dial
    np.testing.assert_array_equal(rows, frame.repeat(4, 0).repeat(4, 1)[:160])


def test_the_arrow_points_where_the_goal_is() -> None:
    """More of the dial's arrow lies on the goal's side."""

    def weight(x: float, z: float) -> np.ndarray:
        start = make_start(goals=[(x, z), (0, 0)])
        black = np.zeros_like(start.frames[-1])
        dial = picture(start, frame=black)[HEADER + 256 - 34 - 22 : HEADER + 256 - 34 + 23, 128 - 22 : 128 + 23].astype(int)
        yellow = (dial[..., 0] > 150) & (dial[..., 2] < 120)
        ys, xs = np.nonzero(yellow)
        return np.array([xs.mean() - 22, ys.mean() - 22])  # right, down

    assert weight(0, 9)[1] < -1  # ahead is up
    assert weight(0, -9)[1] > 1
    assert weight(-9, 0)[0] > 1  # facing +z, -x is to the right
    assert weight(9, 0)[0] < -1


def test_the_map_shows_the_walk_and_the_heading() -> None:
    start = make_start(goals=[(0, 10), (0, 0)])
    history = History.begin(start, start.frames[-1])
    before = picture(start, history=history)
    pose = start.poses[-1].copy()
    for _ in range(6):
        pose = pose.copy()
        pose[2] += 1.0
        history.add(start.frames[-1], pose)
    after = picture(start, history=history, pose=pose)

    def blue(image: np.ndarray) -> np.ndarray:
        area = image[HEADER : HEADER + 256, 256:].astype(int)
        return np.nonzero((area[..., 2] > 220) & (area[..., 0] < 130))[0]

    assert len(blue(before)) == 0
    assert blue(after).size > 100
    turned = pose.copy()
    turned[3] = 90
    assert (picture(start, history=history, pose=turned) != after).any()


def test_memories_are_the_frames_of_their_step_numbers() -> None:
    start = make_start(context=3)
    history = History.begin(start, start.frames[-1])
    for level in (90, 180):
        history.add(np.full((40, 40, 3), level, np.uint8), start.poses[-1])
    image = picture(start, history=history, retrieved=np.array([4, 3, 0, -1, 99]))
    top = image.shape[0] - STRIP + 20 + 30
    middle = [4 + i * (THUMB + 4) + 32 for i in range(4)]
    assert [int(image[top, x, 0]) for x in middle[:3]] == [180, 90, 0]
    np.testing.assert_array_equal(image[top, middle[3]], image[-1, -1])  # -1 and unknown numbers show nothing


def test_memories_say_from_where_they_look() -> None:
    """The label tells distance and turn from the view now: the same memory seen from elsewhere has another one."""
    start = make_start(context=3)
    labels = []
    for moved, turned in ((0.0, 0.0), (3.0, 0.0), (0.0, 45.0)):
        history = History.begin(start, start.frames[-1])
        history.add(start.frames[-1], start.poses[-1] + [0, 0, moved, turned, 0])
        image = picture(start, history=history, pose=history.poses[-1], retrieved=np.array([1]))
        bottom = image.shape[0] - STRIP + 20 + THUMB
        labels.append(image[bottom - 13 : bottom, 4 : 4 + THUMB])
    assert (labels[0] != labels[1]).any()
    assert (labels[0] != labels[2]).any()
    assert (labels[1] != labels[2]).any()


def test_environments_render_every_slot_and_keep_history_through_autoreset() -> None:
    rollout = Rollout(Imagination(FakeModel(), 2), make_task("goto"), make_bank("AB"), max_episode_steps=3, keep_history=True)
    env = NavVectorEnv(rollout, make_action_set("nav-4"), render_mode="rgb_array")
    with pytest.raises(ResetNeeded):
        env.render()
    env.reset(seed=0)
    for _ in range(7):
        env.step(np.array([3, 1]))
        pictures = env.render()
        assert pictures is not None
        assert len(pictures) == 2
        assert all(p.dtype == np.uint8 and p.shape == pictures[0].shape for p in pictures)
        assert (pictures[0] != pictures[1]).any()
    for slot, history in enumerate(rollout._histories or []):
        assert history is not None
        assert len(history.frames) == len(history.poses) == history.context + rollout._now["elapsed"][slot]


def test_a_branch_has_a_history_of_its_own() -> None:
    rollout = Rollout(Imagination(FakeModel(), 1), make_task("goto"), make_bank("AB"), keep_history=True)
    env = NavVectorEnv(rollout, make_action_set("nav-4"), render_mode="rgb_array")
    env.reset(seed=0)
    env.step(np.array([3]))
    kept = env.snapshot()
    shown = env.render()
    env.step(np.array([3]))
    env.restore(kept)
    again = env.render()
    assert shown is not None
    assert again is not None
    np.testing.assert_array_equal(shown[0], again[0])
    histories = rollout._histories
    assert histories is not None
    assert histories[0] is not None
    assert len(histories[0].frames) == len(histories[0].poses) == histories[0].context + 1


def test_no_pictures_without_a_render_mode() -> None:
    rollout = Rollout(Imagination(FakeModel(), 1), make_task("goto"), make_bank("AB"))
    env = NavVectorEnv(rollout, make_action_set("nav-4"))
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode"):
        assert env.render() is None


def test_a_goal_that_only_the_engine_knows_has_an_arrow_and_no_place_on_the_map() -> None:
    start = make_start(goals=[(0, 9)])
    ahead, right = picture(start, compass=0.0), picture(start, compass=90.0)
    dial = (slice(HEADER + 180, HEADER + 256), slice(80, 176))
    assert not np.array_equal(ahead[dial], right[dial]), "the arrow turns"
    assert np.array_equal(ahead[HEADER : HEADER + 256, 256:], right[HEADER : HEADER + 256, 256:])
    assert not np.array_equal(picture(start)[HEADER : HEADER + 256, 256:], ahead[HEADER : HEADER + 256, 256:]), "B is not drawn"
    reached = picture(start, compass=0.0, subgoal=1)
    assert not np.array_equal(reached[:HEADER], ahead[:HEADER]) and not np.array_equal(reached[dial], ahead[dial]), "all goals reached"
