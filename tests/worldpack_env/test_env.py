"""NavEnv: one episode at a time."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, InvalidAction, ResetNeeded

from tests.worldpack_env.fakes import SIZE, TURN, CountingSimulator, CountingWorld, FakeModel, make_bank, make_start
from worldpack_env.actions import make_action_set
from worldpack_env.env import NavEnv
from worldpack_env.imagination import Imagination
from worldpack_env.reality import Reality
from worldpack_env.rollout import Rollout
from worldpack_env.starts import StartBank
from worldpack_env.tasks import make_task


def real_env(**kwargs: Any) -> NavEnv:
    """Over the counting engine."""
    simulator = Reality("counting", 1, frame_size=SIZE, factory=lambda name, frame_size: CountingWorld(frame_size))
    return NavEnv(Rollout(simulator, make_task("loop"), make_bank("ABA"), **kwargs), make_action_set("nav-4"))


def imagined_env(model: FakeModel | None = None, *, loop: str = "ABA", render: bool = False, **kwargs: Any) -> NavEnv:
    """Over the fake model."""
    simulator = Imagination(model or FakeModel(), 1)
    rollout = Rollout(simulator, make_task("loop", loop=loop), make_bank(loop), keep_history=render, **kwargs)
    return NavEnv(rollout, make_action_set("nav-4"), render_mode="rgb_array" if render else None)


def test_an_episode_in_numbers() -> None:
    env = real_env()
    start = make_start(seed=6, goals=[(0.0, 4.0), (0.0, 0.0)])
    observation, info = env.reset(seed=0, options={"start": start})
    assert env.observation_space.contains(observation)
    assert observation["compass"].tolist() == [0.0]
    assert info["distance"] == 4.0
    assert (info["subgoal"], info["is_success"], info["start_index"]) == (0, False, -1)
    assert info["shortest"] == 2.0  # 4 there and 4 back, less the radius of 2 on three ends
    rewards = []
    for action in [3, 3, 3]:  # 0.8636 blocks each: B is reached within 2 at the third
        observation, reward, terminated, truncated, info = env.step(action)
        rewards.append(reward)
    assert rewards == pytest.approx([0.1 * 0.8636 - 0.01] * 2 + [0.1 * 0.8636 + 1 - 0.01])
    assert info["subgoal"] == 1
    assert abs(observation["compass"][0]) == 180.0  # A lies behind
    assert info["distance"] == pytest.approx(3 * 0.8636)
    for action in [2] * 8:
        observation, *_ = env.step(action)
    assert observation["compass"][0] == pytest.approx(0, abs=1e-4)
    observation, reward, terminated, truncated, info = env.step(0)
    assert (terminated, truncated, info["is_success"]) == (True, False, True)
    assert info["path_length"] == pytest.approx(4 * 0.8636)
    assert info["spl"] == pytest.approx(2.0 / (4 * 0.8636))
    assert type(reward) is float
    assert type(info["distance"]) is float
    assert type(info["is_success"]) is bool
    with pytest.raises(ResetNeeded, match="has ended"):
        env.step(0)


def test_both_worlds_open_the_same_starts_in_the_same_order() -> None:
    real, imagined = real_env(), imagined_env()
    for seed in (0, None, None, 5):
        a, b = real.reset(seed=seed), imagined.reset(seed=seed)
        assert a[1]["start_index"] == b[1]["start_index"]
        np.testing.assert_array_equal(a[1]["pose"], b[1]["pose"])
        np.testing.assert_array_equal(a[0]["compass"], b[0]["compass"])


def test_the_action_shows_in_the_very_next_frame() -> None:
    for env in (real_env(), imagined_env()):
        _, info = env.reset(seed=0)
        yaw = info["pose"][3]
        for action, turn in [(2, 22.5), (1, -22.5), (1, -22.5), (3, 0.0)]:
            observation, _, _, _, info = env.step(action)
            assert observation["image"][TURN][0] == round(128 + turn)
            assert info["pose"][3] == pytest.approx(yaw + turn)
            yaw = info["pose"][3]


def test_truncation_after_the_limit() -> None:
    env = real_env(max_episode_steps=3)
    env.reset(seed=0)
    flags = [env.step(1)[2:4] for _ in range(3)]
    assert flags == [(False, False), (False, False), (False, True)]
    assert env.max_episode_steps == 3
    assert real_env().max_episode_steps == 149  # 3 * (15 / 0.8636 + 32) for range 5


def test_retrieved_memories_are_named() -> None:
    env = imagined_env()
    _, info = env.reset(seed=0)
    assert info["retrieved"].tolist() == [-1, -1, -1]
    assert env.step(0)[4]["retrieved"].tolist()[0] == 0
    real = real_env()
    assert real.reset(seed=0)[1]["retrieved"].shape == (0,)


def test_a_lost_prediction_ends_the_episode(caplog: pytest.LogCaptureFixture) -> None:
    model = FakeModel()
    env = imagined_env(model)
    env.reset(seed=0)
    before, *_ = env.step(3)
    model.lose = {0}
    with caplog.at_level(logging.WARNING, logger="worldpack_env.rollout"):
        after, reward, terminated, truncated, info = env.step(3)
    assert (terminated, truncated, info["model_failure"]) == (False, True, True)
    np.testing.assert_array_equal(before["image"], after["image"])
    assert "lost slots [0]" in caplog.text
    model.lose = set()
    assert "model_failure" not in env.reset()[1]
    assert "model_failure" not in env.step(3)[4]


def test_branches_are_equal() -> None:
    env = imagined_env()
    env.reset(seed=0)
    env.step(3)
    kept = env.snapshot()

    def future() -> list[Any]:
        shown = []
        for action in (3, 2, 3, 1):
            observation, reward, *_ = env.step(action)
            shown.append((observation["image"].tobytes(), reward))
        observation, info = env.reset()
        return [*shown, observation["image"].tobytes(), info["start_index"]]

    first = future()
    observation, info = env.restore(kept)
    assert env.observation_space.contains(observation)
    assert info["path_length"] == pytest.approx(0.8636)
    assert future() == first


def test_calls_out_of_order() -> None:
    env = imagined_env()
    for call in (lambda: env.step(0), env.snapshot):
        with pytest.raises(ResetNeeded, match=r"Call reset\(\)"):
            call()
    env.reset(seed=0)
    with pytest.raises(InvalidAction, match="got 4"):
        env.step(4)
    env.close()
    env.close()
    for call in (lambda: env.step(0), env.reset, env.snapshot):
        with pytest.raises(ClosedEnvironmentError, match="after close"):
            call()


def test_closing_closes_the_simulator_and_an_owned_bank_once() -> None:
    closed: list[str] = []

    class Source:
        def __call__(self, index: int) -> Any:
            return make_start()

        def close(self) -> None:
            closed.append("bank")

    for owns in (True, False):
        bank = StartBank(Source(), 1, world="counting", loop="AB", nav_range=5, mode="spawn", frame_size=SIZE)
        simulator = CountingSimulator(1)
        env = NavEnv(Rollout(simulator, make_task("goto"), bank, owns_bank=owns), make_action_set("nav-4"))
        env.close()
        env.close()
        assert simulator.closed == 1
    assert closed == ["bank"]


def test_parts_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="starts are for AB, the task is ABA"):
        Rollout(CountingSimulator(1), make_task("loop"), make_bank("AB"))
    with pytest.raises(ValueError, match="max_episode_steps is 0"):
        Rollout(CountingSimulator(1), make_task("goto"), make_bank("AB"), max_episode_steps=0)
    with pytest.raises(ValueError, match="rollout of 1 slot, got 2"):
        NavEnv(Rollout(CountingSimulator(2), make_task("goto"), make_bank("AB")), make_action_set("nav-4"))
    simulator = CountingSimulator(1)
    simulator.frame_size = (64, 64)
    with pytest.raises(ValueError, match=r"frames of \(40, 40\) pixels, expected \(64, 64\)"):
        Rollout(simulator, make_task("goto"), make_bank("AB"))


def test_image_goals_need_pictures() -> None:
    bank = StartBank.from_starts([make_start()], loop="AB")
    object.__setattr__(bank[0], "goal_frames", None)
    env = NavEnv(Rollout(CountingSimulator(1), make_task("goto"), bank, goal_obs="image"), make_action_set("nav-4"))
    with pytest.raises(ValueError, match="needs starts with goal frames"):
        env.reset(seed=0)
