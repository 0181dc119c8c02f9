"""DQN and QR-DQN learn, go on after a kill with their replay buffer, and are bounded in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.worldpack_agents.agent_fakes import quadrants
from tests.worldpack_agents.test_train import small, weights
from worldpack_agents.callbacks import read_curve
from worldpack_agents.checkpoints import checkpoints, load_agent
from worldpack_agents.dqn import DQNConfig
from worldpack_agents.env_config import EnvConfig
from worldpack_agents.evaluate import EvalAgentConfig, evaluate_agent
from worldpack_agents.train import TrainAgentConfig, train_agent
from worldpack_agents.vec_env import channels_first

SMALL = DQNConfig(
    buffer_size=512, learning_starts=64, batch_size=64, gradient_steps=2, learning_rate=3e-3, gamma=0.5, target_update=64, exploration_fraction=0.5
)


def valued(out: Path, **changes: object) -> TrainAgentConfig:
    return replace(small(out, algorithm="dqn", dqn=SMALL), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithm", ["dqn", "qr-dqn"])
def test_values_are_learned_of_the_compass(tmp_path: Path, algorithm: str) -> None:
    assert train_agent(valued(tmp_path, algorithm=algorithm, total_steps=4096, checkpoint_every=2048), env=quadrants(8)).finished
    curve = read_curve(tmp_path / "curve.jsonl")
    assert curve[0]["return"] < 4.5, "guessing gives 2 of 8"
    assert curve[-1]["return"] > 6.5
    agent = load_agent(tmp_path)
    env = quadrants(8)
    observation, _ = env.reset(seed=99)
    actions, _ = agent.policy.predict(channels_first(observation), deterministic=True)
    assert actions.tolist() == np.round((observation["compass"].ravel() + 135) / 90).astype(int).tolist()


@pytest.mark.parametrize("algorithm", ["dqn", "qr-dqn"])
def test_a_continued_run_has_its_buffer_and_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = (valued(tmp_path / name, algorithm=algorithm, total_steps=768) for name in ("whole", "parts"))
    train_agent(whole, env=quadrants(8))
    assert not list((whole.out / "replay").iterdir()), "a finished run needs no buffer"
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        killed_at(patched, 512)
        train_agent(parts, env=quadrants(8))
    assert [p.name for p in checkpoints(parts.out)] == ["step_000000256"]
    assert sorted(p.name for p in (parts.out / "replay").iterdir()) == ["step_000000256.npz", "step_000000512.npz"]
    assert train_agent(parts, env=quadrants(8)).steps == 768
    first, second = weights(whole.out), weights(parts.out)
    assert all(torch.equal(first[name], second[name]) for name in first)
    whole_curve, parts_curve = ([(line["step"], line.get("return")) for line in read_curve(run.out / "curve.jsonl")] for run in (whole, parts))
    assert whole_curve == parts_curve


def killed_at(patched: pytest.MonkeyPatch, steps: int) -> None:
    """A kill after the buffer of a step is written and before its checkpoint is: the worst moment."""
    from worldpack_agents import callbacks

    write = callbacks.write_checkpoint

    def die(run: Path, at: int, *rest: object, **more: object) -> object:
        if at == steps:
            raise SystemExit
        return write(run, at, *rest, **more)  # type: ignore[arg-type]

    patched.setattr(callbacks, "write_checkpoint", die)


def test_without_its_buffer_a_run_fills_a_new_one_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        killed_at(patched, 512)
        train_agent(valued(tmp_path), env=quadrants(8))
    (tmp_path / "replay" / "step_000000256.npz").write_bytes(b"PK torn")
    assert train_agent(valued(tmp_path), env=quadrants(8)).steps == 512
    assert "is no replay buffer of this run" in caplog.text


def test_a_buffer_beyond_its_bound_is_refused_before_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"takes 0.08 GB, more than 0.01; lower dqn.buffer_size"):
        train_agent(valued(tmp_path, dqn=replace(SMALL, buffer_size=10_000, buffer_gb=0.01)), env=quadrants(8))
    with pytest.raises(ValueError, match="holds no step of 8 slots"):
        train_agent(valued(tmp_path, dqn=replace(SMALL, buffer_size=4)), env=quadrants(8))
    with pytest.raises(ValueError, match="take nav-4 or nav-8"):
        valued(tmp_path, env=EnvConfig(action_set="box"))
    with pytest.raises(ValueError, match="target_update must be at least 1"):
        DQNConfig(target_update=0)


def test_pictures_are_kept_as_bytes_and_timeouts_are_no_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        killed_at(patched, 512)
        train_agent(valued(tmp_path), env=quadrants(8))
    with np.load(tmp_path / "replay" / "step_000000256.npz", allow_pickle=False) as held:
        assert held["observations.image"].dtype == held["next_observations.image"].dtype == np.uint8
        assert held["dones"].sum() == held["timeouts"].sum() > 0, "every episode of this environment is cut"


def test_agents_with_values_are_evaluated_and_learn_in_the_engine_and_in_imagination(tmp_path: Path) -> None:
    env = EnvConfig(nav_range=5, num_starts=2, action_set="nav-8")
    for where in ("real", "imagined"):
        run = tmp_path / where
        config = valued(run, env=env, where=where, num_envs=2, total_steps=96, eval_every=48, eval_episodes=1, eval_in=("real",))
        assert train_agent(config).steps == 96
        assert (run / "best").is_dir()
    result = evaluate_agent(EvalAgentConfig(agent=str(tmp_path / "real"), env=env.with_split("test"), episodes=2))
    assert result["episodes"] == 2


def test_a_zip_of_dqn_from_elsewhere_loads_with_trust(tmp_path: Path) -> None:
    train_agent(valued(tmp_path / "run", total_steps=64), env=quadrants(8))
    zip_file = checkpoints(tmp_path / "run")[-1] / "policy.zip"
    other = tmp_path / "agent.zip"
    other.write_bytes(zip_file.read_bytes())
    assert hasattr(load_agent(other, trust=True).policy, "q_net")
