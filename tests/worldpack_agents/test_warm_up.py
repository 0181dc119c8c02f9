"""A recurrent policy has seen the frames before an episode, and what it learns from is what it acted on."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from tests.worldpack_agents.agent_fakes import quadrants
from tests.worldpack_agents.test_train import small, weights
from worldpack_agents.checkpoints import load_agent
from worldpack_agents.env_config import EnvConfig, make_envs
from worldpack_agents.policies import PolicyConfig
from worldpack_agents.rollouts import AgentPolicy, open_rollout, play
from worldpack_agents.train import TrainAgentConfig, build, train_agent
from worldpack_agents.vec_env import SB3VecEnv, channels_first
from worldpack_agents.warm_up import WarmUp, rollout_of, warm_state
from worldpack_env.goals import bearing
from worldpack_model.checkpoint import CheckpointError
from worldpack_model.geometry import to_local

TURN = EnvConfig(task="LoopNav", nav_range=5, start="turn", num_starts=3)


def recurrent(out: Path, **changes: object) -> TrainAgentConfig:
    return replace(small(out, env=TURN, where="real", algorithm="recurrent-ppo", total_steps=256), **changes)  # type: ignore[arg-type]


def test_the_context_is_what_would_have_been_seen_before() -> None:
    rollout, _ = open_rollout(TURN, "real", 2)
    rollout.begin([0, 1], [np.random.default_rng(s) for s in (3, 4)], {0: 1, 1: 2})
    for slot, index in enumerate((1, 2)):
        start, seen = rollout.bank[index], rollout.context(slot)
        assert set(seen) == set(rollout.observation_space.spaces)
        assert np.array_equal(seen["image"], start.frames[:-1])
        home = start.waypoints[-1]
        expected = [bearing(to_local((home - pose[:3])[None], pose[3:4]))[0] for pose in start.poses[:-1]]
        assert seen["compass"][:, 0] == pytest.approx(expected, abs=1e-4)
        assert seen["compass"].dtype == np.float32
    rollout.close()


def test_a_context_of_no_frames_is_empty_and_leaves_zeros(tmp_path: Path) -> None:
    rollout, _ = open_rollout(replace(TURN, goal_obs="vector"), "real", 1)
    start = rollout.bank[0]
    alone = replace(start, frames=start.frames[-1:], poses=start.poses[-1:], actions=start.actions[:0])
    rollout.begin([0], [np.random.default_rng(0)], {0: alone})
    seen = rollout.context(0)
    assert seen["image"].shape == (0, 64, 64, 3)
    assert seen["vector"].shape == (0, 3)
    rollout.close()
    envs = SB3VecEnv(make_envs(replace(TURN, goal_obs="vector"), "real", num_envs=2))
    model = build(recurrent(tmp_path, num_envs=2), envs)
    assert all(not part.any() for state in warm_state(model.policy, seen) for part in state)
    envs.close()


class Witness(BaseCallback):
    """Looks at every full buffer before anything is learned from it."""

    def __init__(self, warm: WarmUp) -> None:
        super().__init__()
        self.warm, self.expected, self.seen, self.log_ratios = warm, [], 0, []  # type: ignore[var-annotated]

    def __call__(self, states: Any, slots: list[int]) -> None:
        policy, width = self.model.policy, self.model.policy.lstm_actor.hidden_size
        for slot in slots:
            shown = {k: torch.as_tensor(v) for k, v in channels_first(self.warm.rollout.context(slot)).items()}
            state = (torch.zeros(1, 1, width), torch.zeros(1, 1, width))
            with torch.no_grad():
                for n in range(len(shown["image"])):  # frame by frame, as the policy itself goes on
                    _, state = policy.lstm_actor(policy.extract_features({k: v[n : n + 1] for k, v in shown.items()})[None], state)
            self.expected.append(state[0][0, 0])
        self.warm(states, slots)

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        buffer: Any = self.model.rollout_buffer
        held = [buffer.hidden_states_pi[t, 0, slot] for t, slot in np.argwhere(buffer.episode_starts)]
        assert len(held) == len(self.expected)
        for made, wanted in zip(held, self.expected, strict=True):
            assert made == pytest.approx(wanted.numpy(), abs=1e-5)
            assert np.abs(made).max() > 0
        self.seen += len(held)
        self.expected.clear()
        (batch,) = buffer.get(buffer.buffer_size * buffer.n_envs)
        with torch.no_grad():
            _, log_prob, _ = self.model.policy.evaluate_actions(
                batch.observations, batch.actions.long().flatten(), batch.lstm_states, batch.episode_starts
            )
        self.log_ratios.append((log_prob - batch.old_log_prob)[batch.mask > 1e-8])


def test_episodes_begin_with_what_the_lstm_makes_of_the_context_and_are_learned_from_as_they_were_acted(tmp_path: Path) -> None:
    envs = SB3VecEnv(make_envs(replace(TURN, max_episode_steps=7), "real", num_envs=4))
    model = build(recurrent(tmp_path, num_envs=4), envs)
    witness = Witness(WarmUp(model, rollout_of(envs)))
    model.policy.warm_up = witness
    model.learn(3 * 4 * model.n_steps, callback=witness)
    assert witness.seen > 8, "first episodes and later ones, at the start of a rollout and within"
    assert torch.cat(witness.log_ratios).abs().max() < 1e-4, "the policy has not changed yet, so neither have its probabilities"
    envs.close()


def test_a_given_environment_without_contexts_is_refused_before_the_folder_is_claimed(tmp_path: Path) -> None:
    config = replace(small(tmp_path / "run", algorithm="recurrent-ppo"), num_envs=8)
    with pytest.raises(ValueError, match=r"set policy.warm_up to False"):
        train_agent(config, env=quadrants(8))
    assert not (tmp_path / "run" / "config.json").exists()
    assert train_agent(replace(config, policy=PolicyConfig(warm_up=False), total_steps=128), env=quadrants(8)).finished


def test_a_loaded_agent_warms_up_as_it_did_in_training(tmp_path: Path) -> None:
    with_it, without = recurrent(tmp_path / "with"), recurrent(tmp_path / "without", policy=PolicyConfig(warm_up=False))
    for config in (with_it, without):
        train_agent(config)
    assert any(not np.array_equal(a, b) for a, b in zip(weights(with_it.out).values(), weights(without.out).values(), strict=True))
    agents = [load_agent(config.out) for config in (with_it, without)]
    assert [agent.warm_up for agent in agents] == [True, False]
    rollout, actions = open_rollout(TURN, "real", 3)
    policy = AgentPolicy(agents[0])
    play(rollout, actions, policy, range(3))
    rollout.begin([0], [np.random.default_rng(0)], {0: 1})
    policy.begin(7, 0, rollout.bank[1], lambda: rollout.context(0))
    assert policy._states[7][0].abs().max() > 0
    rollout.close()
    with pytest.raises(CheckpointError, match=r"policy.warm_up is True there and False here"):
        train_agent(replace(with_it, policy=replace(with_it.policy, warm_up=False)))


@pytest.mark.parametrize(("algorithm", "refused"), [("ppo", False), ("recurrent-ppo", True)])
def test_runs_from_before_there_was_a_warm_up_go_on_as_they_were(tmp_path: Path, algorithm: str, refused: bool) -> None:
    config = recurrent(tmp_path / "run", algorithm=algorithm, total_steps=128)
    train_agent(config)
    file = config.out / "config.json"
    data = json.loads(file.read_text())
    del data["config"]["policy"]["warm_up"]
    file.write_text(json.dumps(data))
    more = replace(config, total_steps=256)
    if refused:
        assert not load_agent(config.out).warm_up
        with pytest.raises(CheckpointError, match=r"policy.warm_up is False there and True here"):
            train_agent(more)
        more = replace(more, policy=replace(config.policy, warm_up=False))
    data["config"]["total_steps"] = 256
    file.write_text(json.dumps(data))
    assert train_agent(more).finished
