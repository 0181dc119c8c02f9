"""Every id keeps Gymnasium's and Stable-Baselines3's contracts: their own checkers, with every warning an error."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import worldpack_env
from tests.contract.vector_checker import check_vector_env
from tests.worldpack_env.fakes import FakeHeads, FakeModel, make_bank
from worldpack_env.worlds import WORLDS

ACTION_SETS = ("nav-4", "nav-8", "box", "minerl")


@pytest.fixture(autouse=True)
def counting_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the counting engine known by name."""
    monkeypatch.setitem(WORLDS, "counting", "tests.worldpack_env.fakes:CountingWorld")


@pytest.fixture(autouse=True)
def every_warning_is_an_error() -> Any:
    """Gymnasium and SB3 report most breaches as warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def options(name: str, **more: Any) -> dict[str, Any]:
    """Keyword arguments that make ``name`` over the fakes."""
    heads = {"heads": FakeHeads()} if "Find" in name else {}
    return {"model": FakeModel(), "starts": make_bank("ABA" if "LoopNav" in name else "AB"), **heads, **more}


@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
@pytest.mark.parametrize("name", worldpack_env.IDS)
def test_gymnasiums_checker(name: str, render_mode: str | None) -> None:
    check_env(gym.make(name, render_mode=render_mode, **options(name)).unwrapped)


@pytest.mark.parametrize("goal_obs", ["vector", "image", "none"])
@pytest.mark.parametrize("action_set", ACTION_SETS)
def test_gymnasiums_checker_over_actions_and_goals(action_set: str, goal_obs: str) -> None:
    name = "WorldPack/LoopNav-v0"
    made = gym.make(name, **options(name, action_set=action_set, goal_obs=goal_obs)).unwrapped
    if action_set == "minerl":  # its camera is in degrees, as MineRL's is; the checker advises [-1, 1]
        warnings.filterwarnings("ignore", message=".*symmetric and normalized space.*")
    check_env(made)


@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
@pytest.mark.parametrize("name", worldpack_env.IDS)
def test_stable_baselines_checker(name: str, render_mode: str | None) -> None:
    sb3_check_env(gym.make(name, render_mode=render_mode, **options(name)).unwrapped)


@pytest.mark.parametrize("goal_obs", ["vector", "image", "none"])
@pytest.mark.parametrize("action_set", [name for name in ACTION_SETS if name != "minerl"])  # SB3 has no dict actions
def test_stable_baselines_checker_over_actions_and_goals(action_set: str, goal_obs: str) -> None:
    name = "WorldPack/LoopNav-v0"
    sb3_check_env(gym.make(name, **options(name, action_set=action_set, goal_obs=goal_obs)).unwrapped)


@pytest.mark.parametrize("render_mode", ["rgb_array", "rgb_array_list"])
def test_gymnasium_adds_the_list_mode_by_itself(render_mode: str) -> None:
    name = "WorldPack/LoopNav-v0"
    env = gym.make(name, render_mode=render_mode, **options(name))
    env.reset(seed=0)
    env.step(0)
    shown = env.render()
    assert isinstance(shown, list) is (render_mode == "rgb_array_list")


def test_the_vector_checker_accepts_gymnasiums_own() -> None:
    """So it is the contract that it checks, and not our habits."""
    for mode in AutoresetMode:
        check_vector_env(SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 3, autoreset_mode=mode), steps=120)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("action_set", ACTION_SETS)
@pytest.mark.parametrize("name", worldpack_env.IDS)
def test_vector_environments(name: str, action_set: str, mode: AutoresetMode) -> None:
    env = gym.make_vec(name, num_envs=3, autoreset_mode=mode, max_episode_steps=5, action_set=action_set, **options(name))
    check_vector_env(env)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_ours_equals_sync_vector_env_over_singles(mode: AutoresetMode) -> None:
    """The same play through Gymnasium's own vectoriser: observations, rewards, flags, infos and their masks."""
    name = "WorldPack/LoopNav-v0"

    def single() -> gym.Env[Any, Any]:
        return worldpack_env.make_nav_env(max_episode_steps=7, **options(name))

    ours = gym.make_vec(name, num_envs=3, autoreset_mode=mode, max_episode_steps=7, **options(name))
    theirs = SyncVectorEnv([single] * 3, autoreset_mode=mode)
    same(ours.reset(seed=5), theirs.reset(seed=5))
    rng = np.random.default_rng(0)
    for _ in range(30):
        actions = rng.integers(0, 4, 3)
        same(ours.step(actions), theirs.step(actions))


def same(a: Any, b: Any) -> None:
    """Asserts deep equality, keys and types included."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, tuple):
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, np.ndarray) and a.dtype == object:
        assert b.dtype == object
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b
