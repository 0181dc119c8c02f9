"""An agent is judged on its own task unless another is asked for; replays say where imagination was lost."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.worldpack_env.fakes import FakeModel, make_bank
from worldpack_agents.agreement import mean_maximum_rank_violation
from worldpack_agents.bench import BenchMemoryConfig, BenchSpeedConfig, BenchTrainConfig, bench_memory, bench_speed, bench_train
from worldpack_agents.cli import _parse_for_agents
from worldpack_agents.compare import CompareConfig, compare, replay
from worldpack_agents.env_config import EnvConfig
from worldpack_agents.evaluate import EvalAgentConfig, describe, evaluate_agent, task_of
from worldpack_agents.report import table_rows
from worldpack_agents.rollouts import Played, open_rollout
from worldpack_agents.train import PPOConfig, TrainAgentConfig, deciding, train_agent
from worldpack_model.checkpoint import CheckpointError, save_model
from worldpack_model.config import PRESETS
from worldpack_model.world_model import WorldPack


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of an agent that was trained on an unusual task."""
    config = TrainAgentConfig(out=tmp_path / "run", env=EnvConfig(task="LoopNav", loop="ABCA", nav_range=7, max_episode_steps=33, goal_obs="vector"))
    config.out.mkdir()
    (config.out / "config.json").write_text(json.dumps({"config": deciding(config), "observation_space": {}, "action_space": {}}))
    return config.out


def test_the_task_is_the_agents_own_on_held_out_worlds(run: Path) -> None:
    task = task_of(["random", str(run)])
    assert task == EnvConfig(task="LoopNav", loop="ABCA", nav_range=7, max_episode_steps=33, goal_obs="vector", split="test")
    assert task_of([str(run / "checkpoints" / "step_000000512")]) == task
    assert task_of(["random"]) is None
    assert "range 7" in describe(task)
    assert "test worlds" in describe(task)


def test_a_run_that_does_not_tell_its_task_is_refused(run: Path) -> None:
    (run / "config.json").write_text(json.dumps({"config": {}, "observation_space": {}, "action_space": {}}))
    with pytest.raises(CheckpointError, match="another copy"):
        task_of([str(run)])


@pytest.mark.parametrize("told", [[], ["--nav-range", "20"]])
def test_flags_change_the_agents_task(run: Path, told: list[str]) -> None:
    one = _parse_for_agents(EvalAgentConfig, ["--agent", str(run), "--in", "imagined", *told], "eval-agent", lambda c: (c.agent,))
    many = _parse_for_agents(CompareConfig, ["--agents", "random", str(run), *told], "compare", lambda c: c.agents)
    for config in (one, many):
        assert config.env.nav_range == (20 if told else 7)
        assert config.env.goal_obs == "vector"
        assert config.env.split == "test"
    assert one.where == "imagined"
    assert many.agents == ("random", str(run))


def test_a_replay_that_imagination_loses_says_so_and_stands_still() -> None:
    bank, model = make_bank(count=2), FakeModel()
    steps = 4
    episode = {
        "success": False,
        "total_reward": 0.0,
        "steps": steps,
        "path_length": 0.0,
        "shortest": 1.0,
        "spl": 0.0,
        "failed": False,
        "frames": None,
    }
    actions = np.zeros((steps, 9), np.float32)
    actions[:, 0] = 1
    played = [Played(start_index=i, poses=np.zeros((steps + 1, 5)), actions=actions, **episode) for i in range(2)]  # type: ignore[arg-type]
    model.lose = {1}
    sound, lost = replay(model, bank, played)  # type: ignore[arg-type]
    assert (sound.lost, lost.lost) == (False, True)
    assert len(lost.imagined_frames) == len(lost.imagined_poses) == steps + 1
    assert np.array_equal(lost.imagined_frames[0], lost.imagined_frames[-1])
    assert np.linalg.norm(sound.imagined_poses[-1] - sound.imagined_poses[0]) > 3


def test_a_comparison_can_play_the_starts_of_another(tmp_path: Path) -> None:
    env = EnvConfig(nav_range=5, num_starts=2, max_episode_steps=4, model="voxel-64-recent", split="test")
    common = {"agents": ("compass",), "env": env, "episodes": 2, "num_envs": 2, "replays": 1, "videos": 0}
    first = compare(CompareConfig(out=tmp_path / "a", save_starts=True, **common)).data
    file = tmp_path / "a" / "starts.npz"
    other = replace(env, split="train", nav_range=15, model="voxel-64")
    second = compare(CompareConfig(out=tmp_path / "b", starts=file, **{**common, "env": other})).data
    assert second["world_seeds"] == first["world_seeds"], "not those of the other task"
    assert second["agents"][0]["real"] == first["agents"][0]["real"]
    assert (second["env"]["split"], second["env"]["nav_range"]) == ("test", 5), "told is what was played"
    assert "range 5 blocks. Each agent plays the same 2 starts in held-out worlds" in (tmp_path / "b" / "report.html").read_text()
    with pytest.raises(ValueError, match="has 2 starts, 3 episodes were asked for; play at most 2"):
        compare(CompareConfig(out=tmp_path / "c", starts=file, **{**common, "episodes": 3}))
    with pytest.raises(ValueError, match="The starts are for"):
        compare(CompareConfig(out=tmp_path / "c", starts=file, **{**common, "env": replace(env, task="LoopNav")}))


@pytest.mark.parametrize(
    ("task", "told"), [("Find", "find log</b>. Each"), ("Explore", "see new ground</b>. Each"), ("GoToImage", "a picture shows</b>, range 5 blocks.")]
)
def test_a_report_is_of_its_task_and_tells_no_spl_where_there_is_no_shortest_way(task: str, told: str, tmp_path: Path) -> None:
    env = EnvConfig(task=task, nav_range=5, num_starts=2, max_episode_steps=4, split="test")  # type: ignore[arg-type]
    result = compare(CompareConfig(out=tmp_path, agents=("random",), env=env, episodes=2, num_envs=2, replays=0, videos=0))
    page = (tmp_path / "report.html").read_text()
    assert told in page
    has = task == "GoToImage"
    assert ("SPL" in page) == has == ("spl" in result.data["agents"][0]["real"])
    assert len(table_rows(result.data)[0]) == 2 + (5 if has else 4)
    with_summary = evaluate_agent(EvalAgentConfig(agent="random", where="real", env=env, episodes=2, num_envs=2))
    assert all(("spl" in episode) == has for episode in with_summary["episodes_played"])


def test_the_engine_shows_frames_of_the_models_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_model(WorldPack(replace(PRESETS["debug"], frame_size=(48, 48))).eval(), tmp_path / "model")
    env = EnvConfig(nav_range=5, num_starts=1, max_episode_steps=3, model=str(tmp_path / "model"))
    found = {where: open_rollout(env, where, 1)[0] for where in ("imagined", "real")}  # type: ignore[arg-type]
    assert found["imagined"].observation_space == found["real"].observation_space
    run = tmp_path / "run"
    train = {"out": run, "env": env, "ppo": PPOConfig(n_steps=8), "num_envs": 2, "total_steps": 16, "eval_every": 8, "eval_episodes": 1}
    train_agent(TrainAgentConfig(**train, eval_in=("real",), progress=False))  # type: ignore[arg-type]
    result = evaluate_agent(EvalAgentConfig(agent=str(run), where="real", env=env.with_split("test"), episodes=1, num_envs=1))
    assert result["episodes"] == 1
    other = open_rollout(replace(env, frame_size=(48, 64)), "real", 1)[0]
    assert other.observation_space["image"].shape == (48, 64, 3)
    for rollout in (*found.values(), other):
        rollout.close()


def test_agents_that_know_the_map_are_ranked_with_the_others_and_left_out(tmp_path: Path) -> None:
    env = EnvConfig(nav_range=5, num_starts=3, max_episode_steps=8, split="test")
    agents = ("random", "compass", "compass:0.5", "oracle", "oracle:0.5")
    found = compare(CompareConfig(out=tmp_path, agents=agents, env=env, episodes=3, num_envs=3, replays=0, videos=0)).data
    assert {a["agent"]: a["knows_map"] for a in found["agents"]} == {name: name.startswith("oracle") for name in agents}
    scores = {where: np.array([a[where]["success"]["mean"] for a in found["agents"]]) for where in ("imagined", "real")}
    for count, told in ((5, found["agreement"]), (3, found["agreement_of_observers"])):
        violation = told["mean_maximum_rank_violation"]
        assert violation["count"] == count
        assert violation["mean"] == pytest.approx(mean_maximum_rank_violation(scores["imagined"][:count], scores["real"][:count]))
    page = (tmp_path / "report.html").read_text()
    assert "3 of them act on what they observe" in page
    fewer = compare(CompareConfig(out=tmp_path / "fewer", agents=agents[:3], env=env, episodes=3, num_envs=3, replays=0, videos=0)).data
    assert fewer["agreement_of_observers"] is None, "nobody is left out"
    assert "of them act on what they observe" not in (tmp_path / "fewer" / "report.html").read_text()


def test_bench_speed_times_the_whole_step(tmp_path: Path) -> None:
    save_model(WorldPack(PRESETS["debug"]).eval(), tmp_path / "model")
    config = BenchSpeedConfig(
        model=str(tmp_path / "model"), slots=(2,), evaluations=(1,), history=3, repeats=3, out=tmp_path / "speed.json", picture=tmp_path / "roof.png"
    )
    report = bench_speed(config)
    row = report["rows"][0]
    assert row["env_steps_per_second"] == pytest.approx(2000 / row["ms_per_step"])
    assert row["ms_predict_alone"] > 0
    assert row["gflops_per_env_step"] > 0 and row["gigabytes_per_env_step"] > 0 and report["memory_gigabytes_per_second"] > 0
    assert (tmp_path / "roof.png").stat().st_size > 5000
    parts = report["parts_of_a_prediction"]["share_of_time"]
    assert list(parts) == ["retrieval", "motion", "context", "evaluations", "decoder", "everything else"]
    assert sum(parts.values()) == pytest.approx(1)
    assert all(0 < share < 1 for share in parts.values()), "no part is counted twice"
    assert json.loads((tmp_path / "speed.json").read_text())["provenance"]["machine"]["cores"] >= 1


def test_bench_train_says_where_the_time_goes(tmp_path: Path) -> None:
    report = bench_train(BenchTrainConfig(num_envs=2, updates=1, out=tmp_path / "train.json"))
    shares = report["share_of_time"]
    assert sum(shares.values()) == pytest.approx(1)
    assert all(0 < share < 1 for share in shares.values()), "three parts, none counted twice"
    assert report["env_steps_per_second"] > 0
    assert json.loads((tmp_path / "train.json").read_text()) == report


def test_bench_memory_keeps_every_frame_and_compares_in_turn(tmp_path: Path) -> None:
    for name, variant in (("many", "worldpack"), ("few", "recent")):
        save_model(WorldPack(PRESETS["debug"].with_variant(variant)), tmp_path / name)
    config = BenchMemoryConfig(
        model=str(tmp_path / "many"),
        against=str(tmp_path / "few"),
        histories=(20, 90),
        slots=2,
        context_slots=(1, 2),
        repeats=3,
        out=tmp_path / "memory.json",
    )
    report = bench_memory(config)
    assert [(row["frames"], row["kept"]) for row in report["by_history"]] == [(20, 20), (90, 90)]
    assert report["by_history"][0]["ratio"] == 1
    assert [(row["slots"], row["frames"]) for row in report["by_context"]] == [(1, 4), (1, 22), (1, 22), (2, 4), (2, 22), (2, 22)]
    assert all(row["milliseconds"] > 0 for row in (*report["by_history"], *report["by_context"]))
    assert json.loads((tmp_path / "memory.json").read_text()) == report
