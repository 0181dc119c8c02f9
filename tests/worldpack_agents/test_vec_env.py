"""The adapter against literal cases."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecMonitor

import worldpack_env  # noqa: F401 - registers the ids
from tests.worldpack_agents.agent_fakes import SIZE, counting, quadrants
from tests.worldpack_env.fakes import FakeModel, make_bank
from worldpack_agents.vec_env import SB3VecEnv, channels_first


def test_spaces_are_channels_first() -> None:
    env = SB3VecEnv(counting([3], [False]))
    assert env.observation_space["image"] == spaces.Box(0, 255, (3, SIZE, SIZE + 4), np.uint8)
    assert env.observation_space["compass"] == spaces.Box(-180.0, 180.0, (1,), np.float32)
    assert env.action_space == spaces.Discrete(4)


def test_pictures_are_turned_not_scrambled_and_not_copied() -> None:
    image = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    turned = channels_first({"image": image, "compass": np.ones((2, 1), np.float32)})
    assert turned["image"].shape == (2, 3, 4, 5)
    assert turned["image"][1, 2, 3, 4] == image[1, 3, 4, 2]
    assert np.shares_memory(turned["image"], image)
    assert channels_first({"image": image[0]})["image"].shape == (3, 4, 5)


def test_same_step_autoreset_table() -> None:
    # slot 0 ends by the task after 2 steps, slot 1 is cut after 3, slot 2 ends at every step
    env = SB3VecEnv(counting([2, 3, 1], [False, True, False]))
    first = env.reset()
    assert first["compass"].ravel().tolist() == [0, 0, 0]
    shown, rewards, dones, infos = [], [], [], []
    for _ in range(4):
        observation, reward, done, info = env.step(np.zeros(3, np.int64))
        shown.append(observation["compass"].ravel().tolist())
        rewards.append(reward.tolist())
        dones.append(done.tolist())
        infos.append(info)
        assert reward.dtype == np.float32
        assert done.dtype == np.bool_
        assert env.observation_space["image"].contains(observation["image"][0])
    assert shown == [[1, 1, 0], [0, 2, 0], [1, 0, 0], [0, 1, 0]]
    assert rewards == [[1, 1, 1], [2, 2, 1], [1, 3, 1], [2, 1, 1]]
    assert dones == [[False, False, True], [True, False, True], [False, True, True], [True, False, True]]

    ended = infos[1][0]
    assert ended["TimeLimit.truncated"] is False
    assert ended["terminal_observation"]["compass"].tolist() == [2]
    assert ended["terminal_observation"]["image"].shape == (3, SIZE, SIZE + 4)
    assert ended["terminal_observation"]["image"][:, 0, 0].tolist() == [1, 2, 3]
    assert {k: ended["episode"][k] for k in "rl"} == {"r": 3.0, "l": 2}
    assert ended["is_success"] is True

    cut = infos[2][1]
    assert cut["TimeLimit.truncated"] is True
    assert cut["terminal_observation"]["compass"].tolist() == [3]
    assert {k: cut["episode"][k] for k in "rl"} == {"r": 6.0, "l": 3}
    assert cut["is_success"] is False
    assert infos[3][2]["episode"]["l"] == 1
    # nothing of an episode's end in the middle of it
    assert infos[0][0] == {"TimeLimit.truncated": False}


def test_observations_are_not_overwritten_by_the_next_step() -> None:
    env = SB3VecEnv(counting([9], [False]))
    env.reset()
    kept = env.step(np.zeros(1, np.int64))[0]
    env.step(np.zeros(1, np.int64))
    assert kept["compass"].tolist() == [[1]]
    assert int(kept["image"][0, 0, 5, 5]) == 1


def test_chosen_info_keys_are_passed_on() -> None:
    env = SB3VecEnv(counting([2, 5], [False, False]), info_keys=("pose",))
    env.reset()
    assert env.reset_infos[1]["pose"].tolist() == [0] * 5
    infos = env.step(np.zeros(2, np.int64))[3]
    assert infos[0]["pose"].tolist() == [1] * 5
    infos = env.step(np.zeros(2, np.int64))[3]
    assert infos[0]["pose"].tolist() == [2] * 5, "the last pose of the ended episode, not the first of the next"
    assert env.reset_infos[0]["pose"].tolist() == [0] * 5
    assert infos[1]["pose"].tolist() == [2] * 5


def test_seed_acts_at_the_next_reset_only() -> None:
    inner = counting([4, 4], [False, False])
    env = SB3VecEnv(inner)
    assert env.seed(40) == [40, 41]
    assert inner.envs[1].seeds == []
    env.reset()
    env.reset()
    assert inner.envs[1].seeds == [41, None]
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    assert len(set(env.seed(None))) == 2
    assert (np.random.get_state()[1] == before).all(), "a fresh seed must not draw from the global stream"


def test_attributes_methods_and_wrappers() -> None:
    env = SB3VecEnv(counting([4, 4], [False, False], render_mode="rgb_array"))
    assert env.get_attr("num_envs") == [2, 2]
    assert env.get_attr("num_envs", indices=1) == [2]
    with pytest.raises(AttributeError):
        env.get_attr("no_such_thing")
    assert env.has_attr("render_mode")
    env.set_attr("note", 5)
    assert env.env.note == 5
    with pytest.raises(ValueError, match="share one environment"):
        env.set_attr("note", 6, indices=[0])
    assert env.env_is_wrapped(Monitor) == [True, True]
    assert env.env_is_wrapped(gym.wrappers.TimeLimit) == [False, False]
    env.reset()
    env.step(np.zeros(2, np.int64))
    assert [int(image[0, 0, 0]) for image in env.get_images()] == [1, 1]
    assert env.render().shape == (16, 8, 3)
    env.close()
    env.close()


def test_stable_baselines_wrappers_accept_it() -> None:
    with pytest.warns(UserWarning, match="already wrapped with a `Monitor`"):
        env = VecMonitor(SB3VecEnv(counting([2], [False])))
    env.reset()
    env.step(np.zeros(1, np.int64))
    info = env.step(np.zeros(1, np.int64))[3][0]
    assert info["episode"]["r"] == 3.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gym.make_vec("CartPole-v1", 2, vectorization_mode="sync"), "SAME_STEP"),
        (
            lambda: gym.make_vec("CartPole-v1", 2, vectorization_mode="sync", vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP}),
            "expected a Dict",
        ),
        (lambda: gym.make_vec("WorldPack/GoTo-v0", 2, model=FakeModel(), starts=make_bank("AB"), output="torch"), "output='numpy'"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_the_reason(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SB3VecEnv(make())


def test_dict_actions_and_step_without_actions_are_refused() -> None:
    inner = quadrants(2)
    inner.single_action_space = spaces.Dict({"forward": spaces.Discrete(2)})
    with pytest.raises(ValueError, match="no Dict actions"):
        SB3VecEnv(inner)
    env = SB3VecEnv(quadrants(2))
    env.reset()
    with pytest.raises(RuntimeError, match="without actions"):
        env.step_wait()
    env.set_options([{"a": 1}, {"a": 2}])
    with pytest.raises(ValueError, match="same options"):
        env.reset()
    assert isinstance(env.env, SyncVectorEnv)
