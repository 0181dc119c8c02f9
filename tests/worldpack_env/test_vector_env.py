"""NavVectorEnv: autoreset in literal tables, seeds, leakage, masks, branching."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.error import ClosedEnvironmentError, InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode

from tests.worldpack_env.fakes import CountingSimulator, FakeModel, make_bank, make_start
from worldpack_env.actions import make_action_set
from worldpack_env.env import NavEnv
from worldpack_env.imagination import Imagination
from worldpack_env.rollout import FAILURES_TOLERATED, Rollout, SimulatorFailedError
from worldpack_env.starts import Start, StartBank
from worldpack_env.tasks import default_step_limit, make_task
from worldpack_env.vector_env import NavVectorEnv

MODES = list(AutoresetMode)


def lasting(steps: int, seed: int) -> Start:
    """A start of an episode that succeeds after so many steps of the counting simulator; its frames show 16 * seed + step."""
    return make_start(seed=seed, goals=[(0.0, 2.0 + steps)])


def counting_env(mode: AutoresetMode, slots: int = 3, *, steps: int = 2, limit: int = 50) -> NavVectorEnv:
    """An environment whose episodes last ``steps``, in world 9."""
    bank = StartBank.from_starts([lasting(steps, seed=9)], loop="AB")
    rollout = Rollout(CountingSimulator(slots), make_task("goto"), bank, goal_obs="none", max_episode_steps=limit)
    return NavVectorEnv(rollout, make_action_set("nav-4"), autoreset_mode=mode)


def imagined_env(slots: int, *, mode: AutoresetMode = AutoresetMode.SAME_STEP, model: FakeModel | None = None, loop: str = "ABA", **kwargs: Any):
    """An environment over the fake model, and the model."""
    model = model or FakeModel()
    task = make_task("loop" if loop != "AB" else "goto", loop=loop if loop != "AB" else "ABA")
    rollout = Rollout(Imagination(model, slots), task, make_bank(loop), **{"max_episode_steps": 20, **kwargs})
    return NavVectorEnv(rollout, make_action_set("nav-4"), autoreset_mode=mode), model


def single_env(**kwargs: Any) -> NavEnv:
    """The same, alone."""
    rollout = Rollout(Imagination(FakeModel(), 1), make_task("loop"), make_bank("ABA"), **{"max_episode_steps": 20, **kwargs})
    return NavEnv(rollout, make_action_set("nav-4"))


def grey(observation: dict[str, Any]) -> list[int]:
    """World * 16 + step of each slot."""
    return [int(v) for v in observation["image"][:, 5, 5, 0]]


def equal(a: Any, b: Any) -> bool:
    """Deep equality of observations and infos."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, np.ndarray) and a.dtype == object:
        return all(equal(x, y) for x, y in zip(a, b, strict=True))
    return np.array_equal(a, b)


NOOP = np.zeros(3, np.int64)
OPENING = {"start": [lasting(1, seed=1), lasting(3, seed=2), lasting(3, seed=3)]}
"""One episode of length one, and two that end together."""


# ------------------------------------------------------------------------------------------------------------------- autoreset tables


def test_same_step_table() -> None:
    env = counting_env(AutoresetMode.SAME_STEP)
    observation, _ = env.reset(seed=0, options=OPENING)
    assert grey(observation) == [16, 32, 48]
    rows = []
    for _ in range(4):
        observation, reward, terminated, truncated, infos = env.step(NOOP)
        final = [None if f is None else int(f["image"][5, 5, 0]) for f in infos.get("final_obs", [None] * 3)]
        rows.append((grey(observation), terminated.tolist(), final, np.round(reward, 2).tolist()))
        assert not truncated.any()
    assert rows == [
        ([144, 33, 49], [True, False, False], [17, None, None], [1.09, 0.09, 0.09]),
        ([145, 34, 50], [False, False, False], [None, None, None], [0.09, 0.09, 0.09]),
        ([144, 144, 144], [True, True, True], [146, 35, 51], [1.09, 1.09, 1.09]),
        ([145, 145, 145], [False, False, False], [None, None, None], [0.09, 0.09, 0.09]),
    ]


def test_next_step_table() -> None:
    env = counting_env(AutoresetMode.NEXT_STEP)
    env.reset(seed=0, options=OPENING)
    rows = []
    for _ in range(5):
        observation, reward, terminated, _, infos = env.step(NOOP)
        assert "final_obs" not in infos
        rows.append((grey(observation), terminated.tolist(), np.round(reward, 2).tolist(), infos["is_success"].tolist()))
    assert rows == [
        ([17, 33, 49], [True, False, False], [1.09, 0.09, 0.09], [True, False, False]),
        ([144, 34, 50], [False, False, False], [0.0, 0.09, 0.09], [False, False, False]),
        ([145, 35, 51], [False, True, True], [0.09, 1.09, 1.09], [False, True, True]),
        ([146, 144, 144], [True, False, False], [1.09, 0.0, 0.0], [True, False, False]),
        ([144, 145, 145], [False, False, False], [0.0, 0.09, 0.09], [False, False, False]),
    ]
    simulator = env.rollout.simulator
    assert isinstance(simulator, CountingSimulator)
    assert simulator.calls == [[0, 1, 2], [1, 2], [0, 1, 2], [0], [1, 2]]  # a slot that is being reset is not stepped


def test_disabled_table() -> None:
    env = counting_env(AutoresetMode.DISABLED)
    env.reset(seed=0, options=OPENING)
    observation, _, terminated, _, infos = env.step(NOOP)
    assert grey(observation) == [17, 33, 49]
    assert terminated.tolist() == [True, False, False]
    with pytest.raises(ResetNeeded, match=r"slots \[0\] have ended.*reset_mask"):
        env.step(NOOP)
    observation, infos = env.reset(options={"reset_mask": terminated})
    assert grey(observation) == [144, 33, 49]
    assert infos["_pose"].tolist() == [True, False, False]
    assert infos["pose"][1:].tolist() == [[0.0] * 5] * 2
    for shown, done in [([145, 34, 50], [0, 0, 0]), ([146, 35, 51], [1, 1, 1])]:
        observation, _, terminated, _, _ = env.step(NOOP)
        assert grey(observation) == shown
        assert terminated.tolist() == [bool(d) for d in done]


def test_truncation_is_not_termination() -> None:
    env = counting_env(AutoresetMode.SAME_STEP, steps=4, limit=2)
    env.reset(seed=0)
    env.step(NOOP)
    _, _, terminated, truncated, infos = env.step(NOOP)
    assert terminated.tolist() == [False] * 3
    assert truncated.tolist() == [True] * 3
    assert infos["final_info"]["is_success"].tolist() == [False] * 3
    assert infos["final_info"]["path_length"].tolist() == [2.0] * 3
    assert infos["path_length"].tolist() == [0.0] * 3


def test_success_at_the_limit_is_termination_alone() -> None:
    env = counting_env(AutoresetMode.SAME_STEP, steps=2, limit=2)
    env.reset(seed=0)
    env.step(NOOP)
    _, _, terminated, truncated, _ = env.step(NOOP)
    assert terminated.all()
    assert not truncated.any()


def test_final_info_is_gymnasiums() -> None:
    env = counting_env(AutoresetMode.SAME_STEP)
    env.reset(seed=0, options=OPENING)
    _, _, _, _, infos = env.step(NOOP)
    final = infos["final_info"]
    assert infos["final_obs"].dtype == object
    assert infos["_final_obs"].tolist() == infos["_final_info"].tolist() == [True, False, False]
    assert final["_is_success"].tolist() == final["_pose"].tolist() == [True, False, False]
    assert final["is_success"].tolist() == [True, False, False]
    assert final["spl"].tolist() == [1.0, 0.0, 0.0]
    assert final["pose"].tolist() == [[0, 0, 1, 0, 0], [0] * 5, [0] * 5]
    assert final["start_index"][0] == -1  # begun at a given start
    assert infos["start_index"].tolist() == [0, -1, -1]
    assert env.single_observation_space.contains(infos["final_obs"][0])


# ------------------------------------------------------------------------------------------------------------------- one slot or many


@pytest.mark.parametrize("n", [1, 2, 5])
def test_slot_i_equals_the_single_environment(n: int) -> None:
    """Three episodes or so, through autoreset, at every slot: observations, rewards, flags, infos."""
    vector, _ = imagined_env(n, mode=AutoresetMode.SAME_STEP)
    singles = [single_env() for _ in range(n)]
    observation, infos = vector.reset(seed=11)
    last = [env.reset(seed=11 + i) for i, env in enumerate(singles)]
    rng = np.random.default_rng(0)
    ended = 0
    for step in range(50):
        for i, (alone, info) in enumerate(last):
            assert all(np.array_equal(observation[key][i], alone[key]) for key in alone)
            assert all(np.array_equal(infos[key][i], value) and infos[f"_{key}"][i] for key, value in info.items()), step
        actions = rng.integers(0, 4, n)
        observation, reward, terminated, truncated, infos = vector.step(actions)
        for i, env in enumerate(singles):
            alone, r, term, trunc, info = env.step(actions[i])
            assert (r, term, trunc) == (reward[i], terminated[i], truncated[i])
            last[i] = (alone, info)
            if term or trunc:
                ended += 1
                assert equal(infos["final_obs"][i], alone)
                assert all(np.array_equal(infos["final_info"][key][i], value) for key, value in info.items())
                last[i] = env.reset()
    assert ended >= 2 * n


def test_slots_can_be_permuted() -> None:
    order = [2, 0, 1]
    seeds = [5, 6, 7]
    a, _ = imagined_env(3)
    b, _ = imagined_env(3)
    first, _ = a.reset(seed=seeds)
    other, _ = b.reset(seed=[seeds[i] for i in order])
    rng = np.random.default_rng(1)
    for _ in range(30):
        for key in first:
            np.testing.assert_array_equal(first[key][order], other[key])
        actions = rng.integers(0, 4, 3)
        first, reward, *_ = a.step(actions)
        other, reward_b, *_ = b.step(actions[order])
        np.testing.assert_array_equal(reward[order], reward_b)


def test_no_leakage_when_a_slot_ends() -> None:
    """Slot 0 ends early in one run and not in the other; slots 1 and 2 cannot tell."""

    def play(options: dict[str, Any] | None) -> list[Any]:
        env, _ = imagined_env(3, loop="AB")
        env.reset(seed=3, options=options)
        seen = []
        for action in [3, 3, 2, 3, 1, 3, 3, 2, 3, 3]:
            observation, reward, terminated, truncated, infos = env.step(np.full(3, action))
            seen.append(([observation[k][1:] for k in observation], reward[1:], terminated[1:], infos["pose"][1:], infos["retrieved"][1:]))
        state = env.snapshot([1, 2])
        seen.append([state.streams, state.rollout.simulator.memory, [g.tolist() for g in state.rollout.simulator.generators]])
        return seen

    near = [make_start(goals=[(0.0, 2.5)]), None, None]
    far = [make_start(goals=[(90.0, 90.0)]), None, None]
    for a, b in zip(play({"start": near}), play({"start": far}), strict=True):
        for x, y in zip(a, b, strict=True):
            if isinstance(x, np.ndarray):
                np.testing.assert_array_equal(x, y)
            else:
                assert str(x) == str(y)


# ------------------------------------------------------------------------------------------------------------------- seeds


def trace(env: NavVectorEnv, steps: int = 25) -> list[Any]:
    """What a fixed play shows."""
    rng = np.random.default_rng(2)
    return [env.step(rng.integers(0, 4, env.num_envs)) for _ in range(steps)]


def flat(trace: list[Any]) -> bytes:
    """All images and rewards of a trace."""
    return b"".join(step[0]["image"].tobytes() + step[1].tobytes() for step in trace)


def test_same_seed_same_play_other_seed_other_play_and_no_seed_goes_on() -> None:
    env, _ = imagined_env(2)
    env.reset(seed=1)
    first = flat(trace(env))
    env.reset()
    onward = flat(trace(env))
    env.reset(seed=2)
    other = flat(trace(env))
    env.reset(seed=1)
    assert flat(trace(env)) == first
    env.reset()
    assert flat(trace(env)) == onward
    assert len({first, onward, other}) == 3


def test_global_random_state_is_neither_read_nor_touched() -> None:
    plays = []
    for salt in (0, 1):
        random.seed(salt)
        np.random.seed(salt)
        torch.manual_seed(salt)
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        env, _ = imagined_env(2)
        env.reset(seed=1)
        plays.append(flat(trace(env)))
        after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        assert states == after
    assert plays[0] == plays[1]


def test_unseeded_slots_differ_and_a_list_seeds_each() -> None:
    env, _ = imagined_env(4)
    env.reset()
    streams = [str(s) for s in env.snapshot().streams]
    assert len(set(streams)) == 4
    env.reset(seed=[3, None, 3, None])
    again = [str(s) for s in env.snapshot().streams]
    assert again[0] == again[2]
    assert len({again[1], again[3], *streams}) == 6  # they went on, to new states
    with pytest.raises(ValueError, match="list of 2, expected one entry for each of 4"):
        env.reset(seed=[1, 2])


def test_every_episode_has_chance_of_its_own() -> None:
    env = counting_env(AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    for _ in range(8):
        env.step(NOOP)
    simulator = env.rollout.simulator
    assert isinstance(simulator, CountingSimulator)
    drawn = [seed for seeds in simulator.seeds.values() for seed in seeds]
    assert len(drawn) == 15  # three slots, five episodes each
    assert len(set(drawn)) == 15


def test_a_given_start_does_not_shift_the_stream() -> None:
    a, _ = imagined_env(1)
    b, _ = imagined_env(1)
    a.reset(seed=1)
    b.reset(seed=1, options={"start_index": 2})
    assert a.snapshot().streams == b.snapshot().streams


# ------------------------------------------------------------------------------------------------------------------- input and output


def test_observations_are_fresh() -> None:
    env, _ = imagined_env(2)
    observation, infos = env.reset(seed=0)
    kept = {k: v.copy() for k, v in observation.items()}
    results = [env.step(np.zeros(2, np.int64)) for _ in range(2)]
    assert equal(observation, kept)
    for key in observation:
        assert not np.shares_memory(results[0][0][key], results[1][0][key])
    for key, value in infos.items():
        assert not np.shares_memory(value, results[0][4][key]), key
    results[0][0]["image"][:] = 0
    results[0][4]["pose"][:] = 1e9
    assert env.step(np.zeros(2, np.int64))[4]["pose"].max() < 1e3


BAD_MASKS = [
    ([True, False, False], TypeError, "must be a numpy array"),
    (np.array([True, False]), ValueError, r"must have shape `\(3,\)`"),
    (np.array([1, 0, 0]), TypeError, "must have `dtype=np.bool_`"),
    (np.zeros(3, np.bool_), ValueError, "at least one True"),
]


@pytest.mark.parametrize(("mask", "error", "message"), BAD_MASKS)
def test_bad_reset_masks(mask: Any, error: type[Exception], message: str) -> None:
    env = counting_env(AutoresetMode.DISABLED)
    env.reset(seed=0)
    with pytest.raises(error, match=message):
        env.reset(options={"reset_mask": mask})


def test_reset_mask_leaves_the_callers_options_alone_and_seeds_only_its_slots() -> None:
    env, _ = imagined_env(3, mode=AutoresetMode.DISABLED)
    env.reset(seed=0)
    before = env.snapshot().streams
    options = {"reset_mask": np.array([False, True, False])}
    env.reset(seed=7, options=options)
    assert list(options) == ["reset_mask"]
    after = env.snapshot().streams
    assert (before[0], before[2]) == (after[0], after[2])
    alone = single_env()
    alone.reset(seed=8)
    assert after[1] == alone.snapshot().streams[0]


BAD_OPTIONS = [
    ({"start_idx": 1}, "no option 'start_idx'"),
    ({"start_index": 5}, "expected a number from 0 to 4"),
    ({"start_index": -1}, "expected a number from 0 to 4"),
    ({"start_index": True}, "expected a number from 0 to 4"),
    ({"start_index": [0, 1]}, "2 entries, expected one for each of 3"),
    ({"start": 3}, "is int, expected a Start"),
    ({"start": make_start(goals=[(0, 5), (0, 0)]), "start_index": 1}, "give one of them"),
    ({"start": make_start()}, "needs 3"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    env, _ = imagined_env(3)
    with pytest.raises(ValueError, match=message):
        env.reset(options=options)


def test_start_options() -> None:
    env, _ = imagined_env(3)
    assert env.reset(options={"start_index": 2})[1]["start_index"].tolist() == [2, 2, 2]
    assert env.reset(options={"start_index": np.array([0, 4, 1])})[1]["start_index"].tolist() == [0, 4, 1]
    given = make_start(seed=77, goals=[(0, 5), (0, 0)])
    observation, infos = env.reset(seed=0, options={"start": [None, given, None]})
    assert infos["start_index"][1] == -1
    assert observation["image"][1, 0, 1, 0] == 77
    assert infos["start_index"][0] >= 0


def test_calls_out_of_order() -> None:
    env = counting_env(AutoresetMode.SAME_STEP)
    for call in (lambda: env.step(NOOP), env.snapshot, lambda: env.reset(options={"reset_mask": np.array([True, False, False])})):
        with pytest.raises(ResetNeeded):
            call()
    env.reset(seed=0)
    env.close()
    env.close()
    simulator = env.rollout.simulator
    assert isinstance(simulator, CountingSimulator)
    assert simulator.closed == 1
    for call in (lambda: env.step(NOOP), env.reset, env.snapshot):
        with pytest.raises(ClosedEnvironmentError, match="after close"):
            call()


def test_a_bad_action_changes_nothing() -> None:
    env = counting_env(AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    for actions in (np.array([0, 1, 4]), np.zeros(2, np.int64), np.zeros(3, np.float32), None):
        with pytest.raises(InvalidAction):
            env.step(actions)
    assert grey(env.step(NOOP)[0]) == [145, 145, 145]


def test_snapshot_of_an_engine_that_cannot() -> None:
    env = counting_env(AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    with pytest.raises(NotImplementedError, match="cannot be branched"):
        env.snapshot()


# ------------------------------------------------------------------------------------------------------------------- branching, failing


def test_branches_are_equal_also_in_other_slots_and_environments() -> None:
    env, _ = imagined_env(3)
    env.reset(seed=0)
    trace(env, 5)
    kept = env.snapshot()
    future = trace(env)
    restored = env.restore(kept)
    assert restored["image"].shape == (3, 40, 40, 3)
    assert flat(trace(env)) == flat(future)
    fresh, _ = imagined_env(3)
    fresh.restore(kept)
    assert flat(trace(fresh)) == flat(future)
    one = env.snapshot([1])
    observation = env.restore(one, [0])
    np.testing.assert_array_equal(observation["image"][0], observation["image"][1])
    with pytest.raises(ValueError, match="holds 1 slots, 2 were asked"):
        env.restore(one, [0, 1])
    with pytest.raises(ValueError, match="different numbers"):
        env.snapshot([0, 0])


@pytest.mark.parametrize("mode", MODES)
def test_a_failed_slot_is_truncated_with_the_reason_and_the_others_are_not(mode: AutoresetMode) -> None:
    def play(lose: set[int]) -> list[Any]:
        env, model = imagined_env(3, mode=mode)
        env.reset(seed=4)
        env.step(NOOP)
        model.lose = lose
        return [*env.step(NOOP)]

    well, bad = play(set()), play({1})
    assert "model_failure" not in well[4]
    assert bad[3].tolist() == [False, True, False]
    assert bad[2].tolist() == [False] * 3
    infos = bad[4]["final_info"] if mode is AutoresetMode.SAME_STEP else bad[4]
    assert infos["model_failure"].tolist() == infos["_model_failure"].tolist() == [False, True, False]
    assert bad[1][1] == pytest.approx(-0.01)  # stood still
    for i in (0, 2):
        assert all(np.array_equal(bad[0][k][i], well[0][k][i]) for k in well[0])
        assert bad[1][i] == well[1][i]
    assert np.isfinite(infos["pose"]).all()


def test_a_simulator_that_keeps_failing_stops_the_run() -> None:
    env, model = imagined_env(2)
    env.reset(seed=0)
    model.lose = {0, 1}
    with pytest.raises(SimulatorFailedError, match=r"not finite: check it with `worldpack eval-model`"):
        for _ in range(FAILURES_TOLERATED):
            env.step(np.zeros(2, np.int64))
    assert env.rollout._failures >= FAILURES_TOLERATED


def test_bank_can_be_changed_between_episodes() -> None:
    env = counting_env(AutoresetMode.SAME_STEP, slots=1)
    env.reset(seed=0)
    env.set_bank(StartBank.from_starts([lasting(5, seed=4)], loop="AB"))
    observations = [grey(env.step(NOOP[:1])[0])[0] for _ in range(3)]
    assert observations == [145, 64, 65]  # the running episode of world 9 went on, the next is of world 4
    with pytest.raises(ValueError, match="starts are for ABA, the task is AB"):
        env.set_bank(make_bank("ABA"))


def test_unknown_autoreset_and_render_modes() -> None:
    rollout = counting_env(AutoresetMode.SAME_STEP).rollout
    with pytest.raises(ValueError, match="Never"):
        NavVectorEnv(rollout, make_action_set("nav-4"), autoreset_mode="Never")
    with pytest.raises(ValueError, match="expected None or one of rgb_array"):
        NavVectorEnv(rollout, make_action_set("nav-4"), render_mode="ansi")
    with pytest.raises(ValueError, match="keep_history=True"):
        NavVectorEnv(rollout, make_action_set("nav-4"), render_mode="rgb_array")
    assert NavVectorEnv(rollout, make_action_set("nav-4"), autoreset_mode="NextStep").metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


def test_forks_share_the_past_and_have_futures_of_their_own() -> None:
    env, _ = imagined_env(4)
    env.reset(seed=3)
    for _ in range(4):
        env.step(np.array([1, 2, 3, 1]))
    before = env.rollout.observe([0, 1, 2, 3])
    shown = env.fork(1, [0, 3])
    assert equal({k: v[[0, 1, 3]] for k, v in shown.items()}, {k: v[[1, 1, 1]] for k, v in before.items()})
    assert equal({k: v[2] for k, v in shown.items()}, {k: v[2] for k, v in before.items()}), "slot 2 was not asked for"
    after, *_, info = env.step(np.array([1, 1, 1, 2]))
    assert equal({k: v[0] for k, v in after.items()}, {k: v[1] for k, v in after.items()}), "the same action, the same future"
    assert not np.array_equal(info["pose"][1], info["pose"][3])
    shown = env.fork(3)
    assert all(np.array_equal(v[i], v[3]) for v in shown.values() for i in range(4))
    with pytest.raises(ValueError, match="different numbers from 0 to 3"):
        env.fork(4)


def as_arrays(value: Any) -> Any:
    """The same with tensors as arrays."""
    if isinstance(value, dict):
        return {key: as_arrays(part) for key, part in value.items()}
    if isinstance(value, np.ndarray) and value.dtype == object:
        return np.array([as_arrays(part) for part in value], object)
    return value.numpy() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("goal_obs", ["compass", "image"])
def test_tensors_say_what_arrays_say(mode: AutoresetMode, goal_obs: str) -> None:
    """Through ends of episodes, lost slots, snapshots and pictures."""
    settings: dict[str, Any] = {"goal_obs": goal_obs, "max_episode_steps": 4, "keep_history": True}
    models = FakeModel(), FakeModel()
    arrays, _ = imagined_env(3, mode=mode, model=models[0], **settings)
    rollout = Rollout(Imagination(models[1], 3, on_device=True), make_task("loop"), make_bank("ABA"), device=torch.device("cpu"), **settings)
    tensors = NavVectorEnv(rollout, make_action_set("nav-4"), autoreset_mode=mode, render_mode="rgb_array")
    shown, infos = tensors.reset(seed=5)
    expected = arrays.reset(seed=5)
    assert equal(as_arrays((shown, infos)[0]), expected[0])
    assert all(isinstance(value, torch.Tensor) for value in shown.values())
    assert shown["image"].dtype == torch.uint8
    kept = [(shown, {key: value.clone() for key, value in shown.items()})]
    saved = arrays.snapshot(), tensors.snapshot()
    for step in range(11):
        if mode is AutoresetMode.DISABLED and step and step % 4 == 0:
            mask = {"reset_mask": np.ones(3, np.bool_)}
            assert equal(as_arrays(tensors.reset(options=mask)[0]), arrays.reset(options=mask)[0])
        for model in models:
            model.lose = {1} if step == 2 and mode is not AutoresetMode.DISABLED else set()
        one, two = arrays.step(NOOP + step % 4), tensors.step(NOOP + step % 4)
        assert all(isinstance(value, torch.Tensor) for value in two[0].values())
        assert all(isinstance(value, np.ndarray) for value in two[1:4])
        assert all(equal(a, as_arrays(b)) for a, b in zip(one, two, strict=True))
        kept.append((two[0], {key: value.clone() for key, value in two[0].items()}))
    assert all(torch.equal(value, copied[key]) for given, copied in kept for key, value in given.items()), "what was given out stays"
    assert equal(as_arrays(tensors.restore(saved[1])), arrays.restore(saved[0]))
    assert [picture.shape for picture in tensors.render() or ()] == [arrays.rollout.picture(0).shape] * 3


def test_odds_say_where_episodes_begin_and_each_start_has_its_own_limit() -> None:
    banks = [make_bank("AB", 2), StartBank.from_starts([replace(make_start(seed=9, goals=((0.0, 90.0),)), nav_range=50)], loop="AB")]
    rollout = Rollout(CountingSimulator(3), make_task("goto"), StartBank.joined(banks), goal_obs="none")
    env = NavVectorEnv(rollout, make_action_set("nav-4"))
    env.set_odds([0.0, 0.0, 1.0])
    _, info = env.reset(seed=0)
    assert info["start_index"].tolist() == [2, 2, 2]
    env.set_odds([0.0, 1.0, 0.0])
    _, info = env.reset(seed=0)
    assert info["start_index"].tolist() == [1, 1, 1]
    env.set_odds(None)
    drawn = np.concatenate([env.reset(seed=seed)[1]["start_index"] for seed in range(0, 60, 3)])
    assert set(drawn) == {0, 1, 2}
    limits = [default_step_limit("AB", nav_range=reach) for reach in (5, 50)]
    _, info = env.reset(seed=0, options={"start_index": [0, 2, 2]})
    assert rollout._now["limit"].tolist() == [limits[0], limits[1], limits[1]]
    for bad in ([1.0, 1.0], [0.0, 0.0, 0.0], [1.0, -1.0, 1.0], [np.nan, 1.0, 1.0]):
        with pytest.raises(ValueError, match="odds are"):
            env.set_odds(bad)
