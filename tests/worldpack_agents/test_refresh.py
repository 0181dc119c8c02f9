"""The refresh loop from recordings to the last agent, killed in each of its phases."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.worldpack_agents.test_train import small, weights
from worldpack_agents import refresh as module
from worldpack_agents import train
from worldpack_agents.callbacks import read_curve
from worldpack_agents.checkpoints import read_run_config
from worldpack_agents.env_config import EnvConfig
from worldpack_agents.refresh import RefreshConfig, agent_config, refresh
from worldpack_agents.train import PPOConfig, train_agent
from worldpack_env.recorder import RecordConfig, record
from worldpack_model.checkpoint import PARTS, CheckpointError, save_model, sha256
from worldpack_model.config import PRESETS
from worldpack_model.episodes import EpisodeIndex
from worldpack_model.stage import Stage
from worldpack_model.world_model import WorldPack


class Kill(BaseException):
    """Stands for a killed process."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained model and two recorded episodes."""
    root = tmp_path_factory.mktemp("world")
    torch.manual_seed(0)
    save_model(WorldPack(PRESETS["debug"]).eval(), root / "model")
    record(RecordConfig(out=root / "data", episodes=2, mix={"stroll": 1.0}, explore_steps=8, workers=1), progress=False)
    return root


def tiny(world: Path, out: Path, **changes: object) -> RefreshConfig:
    env = EnvConfig(model=str(world / "model"), nav_range=5, num_starts=2, max_episode_steps=6)
    agent = small(out, env=env, ppo=PPOConfig(n_steps=8, batch_size=16, n_epochs=1), num_envs=2, total_steps=64, checkpoint_every=16)
    config = RefreshConfig(
        out=out, data=world / "data", agent=agent, rounds=1, episodes=3, preset="debug", motion_steps=4, motion_batch=4, model_checkpoint_every=1
    )
    return replace(config, **changes)  # type: ignore[arg-type]


def failing(original: Callable[..., object], when: Callable[..., bool], *, after: bool = True) -> Callable[..., object]:
    def call(*words: object, **more: object) -> object:
        result = original(*words, **more) if after or not when(*words, **more) else None
        if when(*words, **more):
            raise Kill
        return result

    return call


def test_a_loop_killed_in_every_phase_ends_as_an_uninterrupted_one(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = tiny(world, tmp_path / "whole"), tiny(world, tmp_path / "parts")
    result = refresh(whole)
    from worldpack_agents import callbacks

    kills: list[tuple[object, str, Callable[..., bool]]] = [
        (callbacks, "write_checkpoint", lambda run, steps, *rest, **more: steps == 16 and "round-0" in str(run)),
        (module, "write_episode", lambda root, episode, stem: stem == "000001"),
        (Stage, "save", lambda stage: stage.name == "motion" and stage.step == 2),
        (callbacks, "write_checkpoint", lambda run, steps, *rest, **more: steps == 16 and "round-1" in str(run)),
    ]
    for owner, name, when in kills:
        with monkeypatch.context() as patched, pytest.raises(Kill):
            patched.setattr(owner, name, failing(getattr(owner, name), when))
            refresh(parts)
    again = refresh(parts)

    # the new episodes are in the data, with their blocks, in train worlds, beginning with their start's context
    episodes = EpisodeIndex.open(parts.out / "round-0" / "episodes")
    assert len(episodes) == 3
    lines = read_curve(parts.out / "round-0" / "collected.jsonl")
    for line in lines:
        episode = episodes.read(next(entry for entry in episodes if int(entry.stem) == line["episode"]))
        assert len(episode) == line["context"] + line["steps"] + 1
        assert episode.blocks is not None and episode.blocks.any()
        assert episode.phases.count("agent") == line["steps"]
    assert len({line["episode"] for line in lines}) == 3
    about = json.loads((parts.out / "round-0" / "model" / "config.json").read_text())
    assert len(about["data_id"].split("+")) == 2

    # the model has another motion, and nothing else
    first, last = world / "model", parts.out / "round-0" / "model" / "model"
    changed = [part for part in PARTS if sha256(first / f"{part}.safetensors") != sha256(last / f"{part}.safetensors")]
    assert changed == ["motion"]
    assert again.model == last

    # the agent went on from its own weights, in the new model, on more starts, and ended as without kills
    there = read_run_config(parts.out / "round-1" / "agent")["config"]
    assert there["init"] == str(parts.out / "round-0" / "agent")
    assert there["env"]["model"] == str(last)
    assert there["env"]["num_starts"] == 5
    one, two = weights(whole.out / "round-1" / "agent"), weights(again.agent)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert sha256(whole.out / "round-0" / "model" / "model" / "motion.safetensors") == sha256(last / "motion.safetensors")

    # steps in the engine are counted, each once
    told = json.loads((parts.out / "refresh.json").read_text())
    assert told["real_steps"] == again.real_steps == result.real_steps == sum(line["steps"] for line in lines) > 0
    assert [line["agent_steps"] for line in told["rounds"]] == [32, 32]
    before = {p: p.stat().st_mtime_ns for p in parts.out.rglob("model/manifest.json")}
    assert refresh(parts).real_steps == again.real_steps
    assert {p: p.stat().st_mtime_ns for p in parts.out.rglob("model/manifest.json")} == before, "what is finished is not done again"
    with pytest.raises(CheckpointError, match=r"other settings \(agent, episodes\)"):
        refresh(replace(parts, episodes=4, agent=replace(parts.agent, seed=3)))


def test_real_slots_of_the_training_are_counted_too(world: Path, tmp_path: Path) -> None:
    config = tiny(world, tmp_path)
    result = refresh(replace(config, agent=replace(config.agent, real_envs=1)))
    assert [line["agent_real_steps"] for line in result.rounds] == [16, 16]
    assert result.real_steps == 32 + result.rounds[0]["collected_steps"]


def test_rates_fall_over_all_rounds_and_exploration_happens_once(world: Path, tmp_path: Path) -> None:
    config = tiny(world, tmp_path, rounds=2)
    rounds = [agent_config(config, number, "m", tmp_path if number else None) for number in range(3)]
    assert rounds[0].ppo.learning_rate == config.agent.ppo.learning_rate
    assert rounds[2].ppo.final_learning_rate == pytest.approx(config.agent.ppo.final_learning_rate)
    assert all(a.dqn.final_learning_rate == b.dqn.learning_rate for a, b in pairwise(rounds))
    assert [r.dqn.exploration_initial for r in rounds] == [1.0, 0.05, 0.05]
    assert [r.env.num_starts for r in rounds] == [2, 5, 8]
    assert len({r.seed for r in rounds}) == 3
    assert sum(r.total_steps for r in rounds) >= config.agent.total_steps


def test_settings_that_make_no_loop_are_refused(world: Path, tmp_path: Path) -> None:
    config = tiny(world, tmp_path)
    with pytest.raises(ValueError, match="trains in imagination"):
        replace(config, agent=replace(config.agent, where="real"))
    with pytest.raises(ValueError, match="train worlds, not test ones"):
        replace(config, agent=replace(config.agent, env=config.agent.env.with_split("test")))
    with pytest.raises(ValueError, match="rounds must be at least 1, not 0"):
        replace(config, rounds=0)
    with pytest.raises(ValueError, match="random_share must be between 0 and 1, not 2"):
        replace(config, random_share=2.0)


def test_an_agent_starts_from_another_ones_weights_of_the_same_form(tmp_path: Path) -> None:
    from tests.worldpack_agents.agent_fakes import quadrants

    train_agent(small(tmp_path / "a", total_steps=128), env=quadrants(8))
    slow = replace(small(tmp_path).ppo, learning_rate=1e-12, final_learning_rate=0.0)
    train_agent(small(tmp_path / "b", total_steps=128, init=tmp_path / "a", ppo=slow, seed=5), env=quadrants(8))
    one, two = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(np.allclose(one[name], two[name], atol=1e-6) for name in one)
    with pytest.raises(CheckpointError, match="has another policy"):
        train_agent(small(tmp_path / "c", init=tmp_path / "a", policy=replace(small(tmp_path).policy, hidden=8)), env=quadrants(8))
    with pytest.raises(CheckpointError, match="has another algorithm"):
        train_agent(small(tmp_path / "d", init=tmp_path / "a", algorithm="dqn"), env=quadrants(8))
    with pytest.raises(CheckpointError, match="no agent at"):
        train_agent(small(tmp_path / "e", init=tmp_path / "none"), env=quadrants(8))
    assert train.deciding(small(tmp_path / "b", init=tmp_path / "a"))["init"] == str(tmp_path / "a")
