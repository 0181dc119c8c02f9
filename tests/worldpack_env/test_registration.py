"""The registered ids, the lazy package, and the options that make environments."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import worldpack_env
from tests.worldpack_env.fakes import SIZE, CountingWorld, FakeHeads, FakeModel, make_bank, make_start
from worldpack_env.env import NavEnv, make_nav_env
from worldpack_env.reality import Reality
from worldpack_env.starts import StartBank
from worldpack_env.tasks import NAVIGATE_STEPS
from worldpack_env.vector_env import NavVectorEnv, make_nav_vector_env
from worldpack_env.worlds import WORLDS


@pytest.fixture(autouse=True)
def counting_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the counting engine known by name."""
    monkeypatch.setitem(WORLDS, "counting", "tests.worldpack_env.fakes:CountingWorld")
    monkeypatch.setitem(WORLDS, "quest", "tests.worldpack_env.fakes:MissionWorld")
    monkeypatch.setitem(WORLDS, "mute", "tests.worldpack_env.fakes:MuteWorld")


def test_importing_the_package_registers_the_ids_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, gymnasium, worldpack_env\n"
        "heavy = {'torch', 'cv2', 'numba', 'stable_baselines3', 'worldpack_model', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert all(id in gymnasium.registry for id in [*worldpack_env.IDS, *worldpack_env.MINERL_KINDS])\n"
        "assert 'NavEnv' in dir(worldpack_env)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_public_name_can_be_loaded() -> None:
    for name in worldpack_env.__all__:
        assert getattr(worldpack_env, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'NavEnvironment'"):
        _ = worldpack_env.NavEnvironment


@pytest.mark.parametrize("name", worldpack_env.IDS)
def test_make_and_make_vec_give_our_own_environments(name: str) -> None:
    loop = "ABA" if "LoopNav" in name else "AB"
    heads: dict[str, Any] = {"heads": FakeHeads()} if "Find" in name else {}
    env = gym.make(name, model=FakeModel(), starts=make_bank(loop), **heads)
    assert isinstance(env.unwrapped, NavEnv)
    assert isinstance(env.unwrapped.rollout.simulator, Reality) is ("Real" in name)
    assert env.unwrapped.rollout.task.loop == loop
    vector = gym.make_vec(name, num_envs=3, model=FakeModel(), starts=make_bank(loop), **heads)
    assert type(vector) is NavVectorEnv
    assert vector.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert vector.single_observation_space == env.observation_space
    assert vector.single_action_space == env.action_space
    observation, _ = vector.reset(seed=0)
    assert vector.observation_space.contains(observation)


def test_the_imagined_and_the_real_id_have_the_same_spaces() -> None:
    for kind, loop in (("LoopNav", "ABA"), ("GoTo", "AB")):
        options: dict[str, Any] = {"model": FakeModel(), "starts": make_bank(loop), "goal_obs": "vector", "action_set": "box"}
        imagined, real = gym.make(f"WorldPack/{kind}-v0", **options), gym.make(f"WorldPack/{kind}Real-v0", **options)
        assert imagined.observation_space == real.observation_space
        assert imagined.action_space == real.action_space
        assert imagined.unwrapped.max_episode_steps == real.unwrapped.max_episode_steps


def test_step_limits_of_make_and_make_vec() -> None:
    options: dict[str, Any] = {"model": FakeModel(), "starts": make_bank("ABA")}
    vector = gym.make_vec("WorldPack/LoopNav-v0", num_envs=2, max_episode_steps=4, **options)
    assert vector.max_episode_steps == 4
    env = gym.make("WorldPack/LoopNav-v0", max_episode_steps=4, **options)
    env.reset(seed=0)
    vector.reset(seed=0)
    for step in range(1, 5):
        assert env.step(1)[3] is (step == 4)
        assert vector.step(np.array([1, 1]))[3].tolist() == [step == 4] * 2
    assert make_nav_env(max_episode_steps=1000, **options).max_episode_steps == 1000


@pytest.mark.parametrize(("observation", "key"), [("compass", "compass"), ("vector", "vector"), ("image", "goal_image"), ("none", None)])
def test_goal_observations(observation: str, key: str | None) -> None:
    env = make_nav_env(model=FakeModel(), starts=make_bank("ABA"), goal_obs=observation)  # type: ignore[arg-type, typeddict-item]
    assert set(env.observation_space.spaces) == {"image"} | ({key} if key else set())
    assert env.observation_space.contains(env.reset(seed=0)[0])


@pytest.mark.parametrize(("kind", "key"), [("GoTo", "compass"), ("GoToImage", "goal_image"), ("Explore", None), ("LoopNav", "compass")])
def test_every_id_has_its_own_goal_observation(kind: str, key: str | None) -> None:
    env = gym.make(f"WorldPack/{kind}-v0", model=FakeModel(), starts=make_bank("ABA" if kind == "LoopNav" else "AB"), render_mode="rgb_array")
    assert set(env.observation_space.spaces) == {"image"} | ({key} if key else set())
    env.reset(seed=0)
    env.step(1)
    assert env.render().std() > 0


@pytest.mark.parametrize("name", ["WorldPack/Find-v0", "WorldPack/FindReal-v0"])
def test_find_ends_where_the_engine_or_a_head_says_so(name: str) -> None:
    options: dict[str, Any] = {} if "Real" in name else {"model": FakeModel(), "heads": FakeHeads()}
    env = gym.make(name, starts=StartBank.from_starts([make_start(context=1)], loop="AB"), **options)
    observation, info = env.reset(seed=0)
    assert set(observation) == {"image"} and not info["is_success"]
    outcomes = [env.step(3)[1:4] for _ in range(3)]
    assert outcomes == [(pytest.approx(-0.01), False, False)] * 2 + [(pytest.approx(0.99), True, False)]
    env.close()


def test_find_with_engines_among_the_slots() -> None:
    bank = StartBank.from_starts([make_start(context=1)], loop="AB")
    envs = make_nav_vector_env(3, task="find", model=FakeModel(), heads=FakeHeads(), starts=bank, real_slots=1)  # type: ignore[arg-type]
    envs.reset(seed=0)
    ended = [envs.step(np.full(3, 3))[2].tolist() for _ in range(3)]
    assert ended == [[False] * 3, [False] * 3, [True] * 3]


def test_the_engine_of_the_starts_is_used_and_its_frame_size() -> None:
    env = make_nav_env(real=True, starts=make_bank("ABA"))
    simulator = env.rollout.simulator
    assert isinstance(simulator, Reality)
    assert isinstance(simulator.worlds[0], CountingWorld)
    assert simulator.frame_size == SIZE


def test_real_environments_build_their_own_starts() -> None:
    env = make_nav_vector_env(2, real=True, nav_range=5, num_starts=1, split="test", start="turn", frame_size=(32, 32))
    observation, infos = env.reset(seed=0)
    assert observation["image"].shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(observation["image"][0], env.rollout.bank[0].frames[-1])
    assert infos["subgoal"].tolist() == [1, 1]  # only the way home is left
    env.close()


BAD: list[tuple[dict[str, Any], str]] = [
    ({"nav_rnge": 5}, "no option named 'nav_rnge'.*nav_range"),
    ({"action_set": "nav-5"}, "no action set named 'nav-5'.*nav-"),
    ({"goal_obs": "map"}, "no goal observation named 'map'"),
    ({"loop": "ABC"}, "no loop named 'ABC'"),
    ({"world": "voxels", "real": True}, "no world named 'voxels'.*voxel"),
    ({"nav_range": 1, "real": True}, "at least 3 blocks"),
    ({"split": "tain", "real": True}, "no split named 'tain'.*train"),
    ({"num_starts": 0, "real": True}, "at least one start"),
    ({"start": "turn", "task": "goto", "real": True}, "no way home"),
    ({"task": "explore", "goal_obs": "compass", "real": True}, "task explore has no goal observation 'compass', expected 'none'"),
    ({"task": "find", "event": "", "real": True}, "needs the name of an event"),
    ({"task": "find", "world": "mute", "real": True}, "world 'mute' does not tell what happens.*'log'"),
    ({"render_mode": "human"}, "expected None or one of rgb_array"),
    ({"loop": "ABCA"}, "starts are for ABA, the task is ABCA"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options_say_what_there_is(options: dict[str, Any], message: str) -> None:
    fill = {} if options.get("real") else {"model": FakeModel(), "starts": make_bank("ABA")}
    for make in (make_nav_env, lambda **k: make_nav_vector_env(2, **k)):
        with pytest.raises(ValueError, match=message):
            make(**fill, **options)  # type: ignore[operator]


MORE_BAD: list[dict[str, Any]] = [{"max_episode_steps": 0}, {"starts": make_bank("AB")}, {"render_mode": "human"}, {"autoreset_mode": "never"}]


@pytest.mark.parametrize("options", [*(options for options, _ in BAD if options.get("real")), *MORE_BAD])
def test_no_engine_stays_open_after_a_mistake(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Reality] = []
    closed: list[Reality] = []

    class Watched(Reality):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            opened.append(self)

        def close(self) -> None:
            super().close()
            closed.append(self)

    monkeypatch.setattr("worldpack_env.reality.Reality", Watched)
    with pytest.raises(ValueError):
        make_nav_vector_env(2, **{"real": True, "world": "counting", **options})  # type: ignore[arg-type]
    assert all(simulator in closed for simulator in opened)
    assert opened or options not in MORE_BAD


def test_a_world_without_heads_of_its_own_is_told_so() -> None:
    bank = StartBank.from_starts([make_start(context=1)], loop="AB")
    with pytest.raises(ValueError, match=r"no set of event heads 'counting'.*shipped \(voxel\)"):
        make_nav_env(task="find", model=FakeModel(), starts=bank)  # type: ignore[arg-type]


def test_an_unknown_model_is_named() -> None:
    with pytest.raises((ValueError, OSError), match="voxel-65"):
        make_nav_env(model="voxel-65")


@pytest.mark.parametrize("name", ["WorldPack/GoToImage-v0", "WorldPack/GoToImageReal-v0"])
def test_tensors_where_they_are_asked_for(name: str) -> None:
    options: dict[str, Any] = {"model": FakeModel(), "starts": make_bank("AB"), "output": "torch", "device": "cpu"}
    vector = gym.make_vec(name, num_envs=2, **options)
    observation, _ = vector.reset(seed=0)
    assert {key: (type(value).__name__, tuple(value.shape)) for key, value in observation.items()} == {
        "image": ("Tensor", (2, *SIZE, 3)),
        "goal_image": ("Tensor", (2, *SIZE, 3)),
    }
    single, _ = make_nav_env(task="goto", real="Real" in name, **options).reset(seed=0)
    assert type(single["image"]).__name__ == "Tensor"
    with pytest.raises(ValueError, match=r"no output named 'jax'"):
        make_nav_env(task="goto", **{**options, "output": "jax"})


@pytest.mark.parametrize("name", worldpack_env.MINERL_KINDS)
def test_a_mission_of_the_engines_own_is_an_environment_like_any_other(name: str) -> None:
    env = gym.make(name, world="quest", frame_size=SIZE, num_starts=2)
    unwrapped = env.unwrapped
    assert isinstance(unwrapped, NavEnv) and unwrapped.max_episode_steps == NAVIGATE_STEPS and len(unwrapped.rollout.bank) == 2
    assert unwrapped.rollout.task.mission == worldpack_env.MINERL_KINDS[name]
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation) and observation["compass"].tolist() == [0.0] and info["distance"] == 64.0
    for step in range(1, 4):
        observation, reward, terminated, truncated, info = env.step(3)
        assert reward == 1.0 and observation["compass"].tolist() == [10.0 * step] and info["distance"] == 64.0 - step
        assert (terminated, truncated, info["is_success"]) == (step == 3, False, step == 3)
    assert info["spl"] == 1.0 and info["shortest"] == 64.0
    vector = gym.make_vec(name, num_envs=2, world="quest", frame_size=SIZE, max_episode_steps=2)
    vector.reset(seed=0)
    vector.step(np.array([3, 3]))
    assert vector.step(np.array([3, 3]))[3].tolist() == [True, True]
    assert "compass" not in gym.make(name, world="quest", goal_obs="none").observation_space.spaces  # type: ignore[attr-defined]


def test_a_mission_needs_an_engine_that_has_it() -> None:
    with pytest.raises(ValueError, match="NavigateReal"):
        make_nav_env(task="navigate", model=FakeModel())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="The world 'counting' has no mission 'navigate'; the world 'minerl' has"):
        make_nav_env(task="navigate", real=True, world="counting")
    with pytest.raises(ValueError, match="no goal observation 'vector'"):
        make_nav_env(task="navigate", real=True, world="quest", goal_obs="vector")
