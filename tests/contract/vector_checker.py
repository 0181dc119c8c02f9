"""Checks the contract of any Gymnasium vector environment; Gymnasium has a checker for single ones only."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, iterate


def check_vector_env(env: VectorEnv[Any, Any, Any], *, steps: int = 60, seed: int = 3) -> None:
    """Plays ``steps`` random steps and asserts what Gymnasium promises of a vector environment; closes it.

    The episodes must be short enough that some end in that time, or the check of autoreset means nothing (that is asserted as well).
    """
    n = env.num_envs
    mode = env.metadata.get("autoreset_mode")
    assert isinstance(mode, AutoresetMode), f"metadata['autoreset_mode'] is {mode!r}, not the enum"
    assert env.observation_space == batch_space(env.single_observation_space, n)
    assert env.action_space == batch_space(env.single_action_space, n)
    env.action_space.seed(seed)

    observation, infos = env.reset(seed=seed)
    _check_observation(env, observation)
    _check_infos(infos, n)
    first = _copy(observation)
    kept = [(observation, first)]
    ended = np.zeros(n, np.bool_)
    seen = 0
    for _ in range(steps):
        if mode is AutoresetMode.DISABLED and ended.any():
            before = _copy(observation)
            observation, infos = env.reset(options={"reset_mask": ended})
            _check_observation(env, observation)
            for slot in np.flatnonzero(~ended):
                assert _equal(_slot(env, observation, slot), _slot(env, before, slot)), "reset_mask changed a slot that it leaves out"
        result = env.step(env.action_space.sample())
        assert len(result) == 5
        observation, reward, terminated, truncated, infos = result
        _check_observation(env, observation)
        kept.append((observation, _copy(observation)))
        assert isinstance(reward, np.ndarray)
        assert reward.shape == (n,)
        assert np.issubdtype(reward.dtype, np.floating)
        assert np.isfinite(reward).all()
        for flags in (terminated, truncated):
            assert isinstance(flags, np.ndarray)
            assert flags.shape == (n,)
            assert flags.dtype == np.bool_
        _check_infos(infos, n)
        was, ended = ended, terminated | truncated
        seen += int(ended.sum())
        if mode is AutoresetMode.NEXT_STEP:
            assert (reward[was] == 0).all(), "the step that resets has no reward"
            assert not ended[was].any(), "the step that resets cannot end an episode"
        assert ("final_obs" in infos) == (mode is AutoresetMode.SAME_STEP and bool(ended.any()))
        if "final_obs" in infos:
            assert infos["_final_obs"].tolist() == infos["_final_info"].tolist() == ended.tolist()
            assert isinstance(infos["final_info"], dict)
            for slot, final in enumerate(infos["final_obs"]):
                assert (final is None) != ended[slot]
                assert final is None or env.single_observation_space.contains(final)
    assert seen >= n, f"only {seen} episodes ended in {steps} steps; make them shorter"
    for shown, copied in kept:
        assert _equal(shown, copied), "an observation that was returned earlier has changed"

    again, _ = env.reset(seed=seed)
    assert _equal(again, first), "the same seed gave another first observation"
    env.close()
    env.close()
    assert env.closed


def _check_observation(env: VectorEnv[Any, Any, Any], observation: Any) -> None:
    assert env.observation_space.contains(observation), "the observation is not in the observation space"


def _check_infos(infos: Any, n: int) -> None:
    assert isinstance(infos, dict)
    for key, value in infos.items():
        if key.startswith("_"):
            assert value.shape == (n,)
            assert value.dtype == np.bool_
            assert key[1:] in infos, f"{key} masks nothing"
        else:
            assert f"_{key}" in infos, f"{key} has no mask"
            if isinstance(value, dict):
                _check_infos(value, n)
            else:
                assert isinstance(value, np.ndarray)
                assert len(value) == n


def _slot(env: VectorEnv[Any, Any, Any], observation: Any, slot: int) -> Any:
    return list(iterate(env.observation_space, observation))[slot]


def _copy(value: Any) -> Any:
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, dict) else np.array(value)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    return bool(np.array_equal(a, b))
