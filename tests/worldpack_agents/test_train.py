"""Learning, resuming, stopping, and who may claim a run folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.worldpack_agents.agent_fakes import quadrants
from worldpack_agents.callbacks import StopOnSignal, read_curve, segment_seed
from worldpack_agents.checkpoints import BEST, checkpoints, load_agent, newest_checkpoint, read_policy_tensors, write_checkpoint
from worldpack_agents.env_config import EnvConfig
from worldpack_agents.policies import PolicyConfig
from worldpack_agents.rollouts import AgentPolicy, open_rollout, play
from worldpack_agents.train import LinearSchedule, PPOConfig, TrainAgentConfig, train_agent
from worldpack_agents.vec_env import channels_first
from worldpack_model.checkpoint import CheckpointError


def small(out: Path, **changes: object) -> TrainAgentConfig:
    config = TrainAgentConfig(
        out=out,
        env=EnvConfig(),
        ppo=PPOConfig(n_steps=16, batch_size=64, n_epochs=4, learning_rate=3e-3, gamma=0.5),
        policy=PolicyConfig(image_features=8, width=4, goal_features=16, hidden=32),
        num_envs=8,
        total_steps=512,
        checkpoint_every=256,
        progress=False,
    )
    return replace(config, **changes)  # type: ignore[arg-type]


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = newest_checkpoint(run)
    assert found is not None
    return read_policy_tensors(found[0] / "policy.zip")


def test_ppo_learns_to_read_the_compass(tmp_path: Path) -> None:
    result = train_agent(small(tmp_path, total_steps=6144, checkpoint_every=4096), env=quadrants(8))
    assert result.finished
    assert result.steps == 6144
    curve = read_curve(tmp_path / "curve.jsonl")
    assert curve[0]["return"] < 4.0, "guessing gives 2 of 8"
    assert curve[-1]["return"] > 7.0
    assert curve[-1]["success"] > 0.5

    agent = load_agent(tmp_path)
    assert agent.steps == 6144
    assert not agent.recurrent
    env = quadrants(8)
    observation, _ = env.reset(seed=99)
    actions, _ = agent.policy.predict(channels_first(observation), deterministic=True)
    answers = np.round((observation["compass"].ravel() + 135) / 90).astype(int)
    assert actions.tolist() == answers.tolist()


def test_a_continued_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_agent(small(whole, total_steps=768), env=quadrants(8))
    assert [p.name for p in checkpoints(whole)] == ["step_000000256", "step_000000512", "step_000000768"]

    # lost after the first checkpoint: what is left is exactly what a kill leaves
    train_agent(small(parts, total_steps=768), env=quadrants(8))
    for path in checkpoints(parts)[1:]:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    result = train_agent(small(parts, total_steps=768), env=quadrants(8))
    assert result.steps == 768
    first, second = weights(whole), weights(parts)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    whole_curve, parts_curve = (read_curve(run / "curve.jsonl") for run in (whole, parts))
    drop = ("steps_per_second",)
    assert [{k: v for k, v in line.items() if k not in drop} for line in whole_curve] == [
        {k: v for k, v in line.items() if k not in drop} for line in parts_curve
    ]


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    train_agent(small(tmp_path / "a"), env=quadrants(8))
    train_agent(small(tmp_path / "b"), env=quadrants(8))
    train_agent(small(tmp_path / "c", seed=1), env=quadrants(8))
    first, same, other = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(first[k], same[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    train_agent(small(tmp_path), env=quadrants(8))
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    assert train_agent(small(tmp_path), env=quadrants(8)).finished
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before


def test_only_so_many_checkpoints_stay(tmp_path: Path) -> None:
    train_agent(small(tmp_path, checkpoint_every=128, keep_checkpoints=2), env=quadrants(8))
    assert [p.name for p in checkpoints(tmp_path)] == ["step_000000384", "step_000000512"]


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    train_agent(small(tmp_path), env=quadrants(8))
    with pytest.raises(CheckpointError, match=r"ppo.gamma is 0.5 there and 0.9 here.*another --out"):
        train_agent(small(tmp_path, ppo=replace(small(tmp_path).ppo, gamma=0.9)), env=quadrants(8))
    with pytest.raises(CheckpointError, match=r"total_steps"):
        train_agent(small(tmp_path, total_steps=1024), env=quadrants(8))
    assert train_agent(small(tmp_path, keep_checkpoints=9), env=quadrants(8)).finished, "settings that do not decide the result may change"
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match="no config.json"):
        train_agent(small(tmp_path), env=quadrants(8))


def test_a_path_may_be_spelled_in_another_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = EnvConfig(nav_range=5, num_starts=2)
    first = small(tmp_path / "first", env=env, where="real", total_steps=128)
    train_agent(first)
    monkeypatch.chdir(tmp_path)
    second = small(tmp_path / "second", env=env, where="real", total_steps=128, init=Path("first"))
    assert train_agent(second).steps == 128
    assert train_agent(replace(second, init=tmp_path / "first")).finished
    with pytest.raises(CheckpointError, match="init is"):
        train_agent(replace(second, init=tmp_path / "second"))


def test_wrong_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="total_steps must be at least 1, not 0"):
        small(tmp_path, total_steps=0)
    with pytest.raises(ValueError, match="gamma must be between 0 and 1"):
        PPOConfig(gamma=1.5)
    with pytest.raises(ValueError, match="nav_range must be at least 3"):
        EnvConfig(nav_range=2)
    with pytest.raises(ValueError, match="4 slots, the config says 8"):
        train_agent(small(tmp_path), env=quadrants(4))


def test_learning_rate_falls_on_a_line_and_segments_have_own_seeds() -> None:
    rate = LinearSchedule(1.0, 0.2)
    assert [round(rate(x), 6) for x in (1.0, 0.5, 0.0, -0.1)] == [1.0, 0.6, 0.2, 0.2]
    assert len({segment_seed(s, n) for s in range(5) for n in (0, 256, 512)}) == 15


CHILD = """
import sys
from pathlib import Path
from worldpack_agents.train import train_agent
from tests.worldpack_agents.agent_fakes import quadrants
from tests.worldpack_agents.test_train import small
print("ready", flush=True)
result = train_agent(small(Path(sys.argv[1]), total_steps=10**7, checkpoint_every=int(sys.argv[2])), env=quadrants(8))
print("finished" if result.finished else "stopped", result.steps, flush=True)
"""


def child(run: Path, every: int) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), *(p for p in sys.path if p)])
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(run), str(every)], stdout=subprocess.PIPE, text=True, cwd=root, env={**os.environ, "PYTHONPATH": path}
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def wait_for(what, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def test_the_newest_checkpoint_loads_after_kills_at_any_moment(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    steps = 0
    for _ in range(3):
        with child(tmp_path, every=128) as process:  # a checkpoint after every update: kills often hit the writing of one
            wait_for(lambda: any(int(p.name[5:]) > steps for p in checkpoints(tmp_path)))  # noqa: B023 - called at once
            time.sleep(float(generator.uniform(0.0, 0.3)))
            process.kill()
        agent = load_agent(tmp_path)
        assert agent.steps is not None
        assert agent.steps > steps
        assert agent.steps % 128 == 0
        steps = agent.steps


def test_one_process_at_a_time_and_sigterm_saves_the_last_update(tmp_path: Path) -> None:
    with child(tmp_path, every=10**6) as process:
        wait_for(lambda: len(read_curve(tmp_path / "curve.jsonl")) >= 2)
        with pytest.raises(ValueError, match="Another process trains in"):
            train_agent(small(tmp_path, total_steps=10**7), env=quadrants(8))
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    word, steps = out.split()
    assert word == "stopped"
    assert process.returncode == 0
    assert load_agent(tmp_path).steps == int(steps)
    assert int(steps) >= 128
    assert int(steps) % 128 == 0


def test_signals_are_given_back_after_training(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    train_agent(small(tmp_path, total_steps=128), env=quadrants(8))
    assert signal.getsignal(signal.SIGTERM) is before
    assert json.loads((tmp_path / "config.json").read_text())["config"]["seed"] == 0
    assert list((tmp_path / "tensorboard").iterdir())


def scripted(monkeypatch: pytest.MonkeyPatch, *successes: float) -> list[float]:
    """Evaluations that find these successes, one after the other; the list holds what is left."""
    left = list(successes)

    def found(played: object) -> dict[str, object]:
        return {"steps": 1, "success": {"mean": left.pop(0)}, "return": {"mean": 0.0}, "spl": {"mean": 0.0}}

    monkeypatch.setattr("worldpack_agents.eval_callback.summarise", found)
    return left


def best(run: Path) -> list[tuple[int, float]]:
    kept = [json.loads((path / "manifest.json").read_text()) for path in checkpoints(run, BEST)]
    return [(one["steps"], one["success"]) for one in kept]


def test_the_best_agent_stays_when_training_goes_back_to_an_earlier_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(
        tmp_path, env=EnvConfig(nav_range=5, num_starts=2), where="real", eval_every=128, eval_episodes=1, eval_videos=0, keep_checkpoints=9
    )
    scripted(monkeypatch, 0.1, 0.9, 0.5)
    train_agent(replace(config, total_steps=384))
    assert best(tmp_path) == [(256, 0.9)]
    for late in checkpoints(tmp_path)[1:]:  # killed before these were written
        shutil.rmtree(late)
    went_back = newest_checkpoint(tmp_path)
    assert went_back is not None and went_back[1]["steps"] == 256
    os.rename(tmp_path / BEST / "step_000000256", tmp_path / BEST / "step_000000384")  # as if it had been the last evaluation's
    manifest = tmp_path / BEST / "step_000000384" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"steps": 384}))
    scripted(monkeypatch, 0.4, 0.2)
    train_agent(replace(config, total_steps=384))
    assert best(tmp_path) == [(384, 0.9)]  # not the worse one that came after it was made


def test_a_better_agent_replaces_the_best_whatever_its_step(tmp_path: Path) -> None:
    for steps, success in ((700, 0.8), (500, 0.9)):
        write_checkpoint(tmp_path, steps, lambda path: path.write_bytes(b"policy"), {"success": success}, keep=1, into=BEST)
    assert best(tmp_path) == [(500, 0.9)]
    for steps in (300, 100, 200):
        write_checkpoint(tmp_path, steps, lambda path: path.write_bytes(b"policy"), {}, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_000000200", "step_000000300"]


def test_who_asks_for_a_stop_waits_for_no_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = scripted(monkeypatch, 0.1, 0.2)

    class Stops(StopOnSignal):
        """Asked to stop as soon as training begins."""

        def __enter__(self) -> StopOnSignal:
            self.asked = "SIGTERM"
            return super().__enter__()

    monkeypatch.setattr("worldpack_agents.train.StopOnSignal", Stops)
    config = small(tmp_path, env=EnvConfig(nav_range=5, num_starts=2), where="real", eval_every=8, eval_episodes=1)
    assert not train_agent(config).finished
    assert len(left) == 2 and not (tmp_path / BEST).exists()
    assert newest_checkpoint(tmp_path) is not None


def test_an_agent_can_learn_from_imagined_and_real_episodes_together(tmp_path: Path) -> None:
    config = small(tmp_path, env=EnvConfig(nav_range=5, num_starts=2), num_envs=4, real_envs=3, total_steps=64)
    assert train_agent(config).steps == 64
    assert json.loads((tmp_path / "config.json").read_text())["config"]["real_envs"] == 3
    with pytest.raises(ValueError, match="real_envs must be at least 0 and below num_envs, in imagination, not 4 of 4"):
        small(tmp_path, num_envs=4, real_envs=4)
    with pytest.raises(ValueError, match="1 of 8 \\(real\\)"):
        small(tmp_path, where="real", real_envs=1)


def test_a_recurrent_agent_continues_as_well_and_remembers_within_its_episode_only(tmp_path: Path) -> None:
    env = EnvConfig(nav_range=5, num_starts=3)
    whole = small(tmp_path / "whole", env=env, where="real", algorithm="recurrent-ppo", total_steps=512)
    parts = replace(whole, out=tmp_path / "parts")
    for config in (whole, parts):
        train_agent(config)
    for file in checkpoints(parts.out)[-1].iterdir():
        file.unlink()
    checkpoints(parts.out)[-1].rmdir()
    train_agent(parts)
    first, second = weights(whole.out), weights(parts.out)
    assert any("lstm" in name for name in first)
    assert all(torch.equal(first[name], second[name]) for name in first)

    played = {}
    for slots in (1, 3):
        rollout, actions = open_rollout(replace(env, split="val"), "real", slots)
        played[slots] = play(rollout, actions, AgentPolicy(load_agent(whole.out)), range(3))
        rollout.close()
    for one, beside in zip(played[1], played[3], strict=True):
        assert np.array_equal(one.actions, beside.actions), "nothing is carried from one episode to the next"
