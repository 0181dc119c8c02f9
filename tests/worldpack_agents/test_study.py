"""Aggregation in numbers worked out by hand, and a study of two tiny conditions from its file to its page."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from worldpack_agents.study import (
    StudyConfig,
    aggregate,
    difference,
    interquartile_mean,
    ratio,
    read_study,
    run_study,
    shipped_studies,
    steps_to,
    train_config,
)
from worldpack_agents.study_report import study_rows
from worldpack_model.checkpoint import CheckpointError

TINY = """
title = "Which way round?"
question = "Does <b> it work?"
seeds = [0, 1]
[base]
in = "real"
"env.nav_range" = 5
"env.num_starts" = 3
"ppo.n_steps" = 8
num_envs = 4
total_steps = 64
eval_every = 32
eval_episodes = 2
[conditions.slow]
"ppo.learning_rate" = 1e-4
[conditions.fast]
"ppo.learning_rate" = 1e-2
[evaluate]
episodes = 3
[smoke]
total_steps = 32
episodes = 2
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def test_the_inter_quartile_mean_cuts_a_quarter_from_either_end() -> None:
    assert interquartile_mean([9.0, 1.0, 2.0, -50.0]) == 1.5
    assert interquartile_mean([[0.0, 1.0], [2.0, 3.0], [4.0, 100.0]]) == pytest.approx((0.5 * 1 + 2 + 3 + 0.5 * 4) / 3), (
        "of six, one and a half are cut"
    )
    assert interquartile_mean([0.3]) == pytest.approx(0.3)
    with pytest.raises(ValueError, match="at least one"):
        interquartile_mean([])


def test_intervals_are_of_seeds_and_episodes() -> None:
    same = np.tile(np.array([0.0, 1.0, 1.0, 1.0]), (3, 1))
    found = aggregate(same)
    assert found["mean"]["mean"] == 0.75
    assert found["mean"]["low"] < 0.75 < found["mean"]["high"]
    apart = np.repeat(np.array([[0.0], [1.0], [1.0]]), 200, axis=1)
    assert aggregate(apart)["mean"]["low"] < 0.34, "many episodes do not make up for few seeds"
    rng = np.random.default_rng(0)
    hard = rng.random(50)
    first, second = (np.tile(hard + shift, (3, 1)) for shift in (0.1, 0.0))
    paired = difference(first, second)
    assert paired["low"] == pytest.approx(0.1), "the same starts are hard for both"
    assert paired["high"] == pytest.approx(0.1)


def test_steps_to_a_success() -> None:
    line = {"in": "real", "success": {"mean": 0.4}}
    lines = [{**line, "step": 10}, {"in": "imagined", "success": {"mean": 1.0}, "step": 20}, {**line, "step": 30, "success": {"mean": 0.8}}]
    assert steps_to(lines, 0.4) == 10
    assert steps_to(lines, 0.5) == 30
    assert steps_to(lines, 0.9) is None


def test_settings_are_changed_from_the_command_line(file: Path) -> None:
    study = read_study(str(file), change=["total_steps=128", 'in="real"', "curriculum.lessons=['AB-5']"])
    config = train_config(study, "slow", 0, Path("x"))
    assert (config.total_steps, config.where, config.curriculum.lessons) == (128, "real", ("AB-5",))
    with pytest.raises(ValueError, match="'in=real' is not KEY=VALUE with a TOML value"):
        read_study(str(file), change=["in=real"])
    with pytest.raises(ValueError, match="'total_steps' is not KEY=VALUE"):
        read_study(str(file), change=["total_steps"])
    with pytest.raises(ValueError, match="there is no setting 'steps'"):
        read_study(str(file), change=["steps=5"])
    with pytest.raises(ValueError, match="would change nothing: slow, fast set ppo.learning_rate themselves"):
        read_study(str(file), change=["ppo.learning_rate=0.1"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('in="engine"', "base|in is 'engine', expected one of 'imagined', 'real'"),
        ('eval_in="real"', "eval_in is 'real', expected a list"),
        ('total_steps="64"', "total_steps is '64', expected int"),
        ("progress=1", "progress is 1, expected bool"),
        ("policy={hiden=16}", "there is no setting 'hiden'"),
        ("env.nav_range=1", "at least 3"),
    ],
)
def test_values_of_a_wrong_kind_are_refused(file: Path, change: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_study(str(file), change=[change])


def test_tables_within_tables(file: Path) -> None:
    study = read_study(str(file), change=["policy={hidden=16}", 'init="some/run"', "env={nav_range=7}"])
    config = train_config(study, "slow", 0, Path("x"))
    assert (config.policy.hidden, config.init, config.env.nav_range, config.env.num_starts) == (16, Path("some/run"), 7, 3)


def test_how_agents_are_judged_shows_before_training_and_may_change(file: Path, tmp_path: Path) -> None:
    right = TINY.replace("total_steps = 64", "total_steps = 32")
    file.write_text(right.replace("episodes = 3", "episods = 3"))
    with pytest.raises(ValueError, match="there is no setting 'episods'"):
        run_study(StudyConfig(str(file), out=tmp_path / "out", seeds=(0,)))
    assert not (tmp_path / "out").exists()
    file.write_text(right)
    run_study(StudyConfig(str(file), out=tmp_path / "out", seeds=(0,)))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("policy.zip")}
    file.write_text(right.replace("episodes = 3", "episodes = 5"))
    report = run_study(StudyConfig(str(file), out=tmp_path / "out", seeds=(0,)))
    assert all(len(cell["success"]) == 5 for cell in report["cells"])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("policy.zip")} == before, "judged anew, not trained"


def test_a_ratio_is_paired_and_none_where_nobody_succeeds() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(50)
    twice = ratio(np.tile(2 * hard, (3, 1)), np.tile(hard, (3, 1)))
    assert twice is not None
    assert (twice["mean"], twice["low"], twice["high"]) == pytest.approx((2.0, 2.0, 2.0))
    assert ratio(np.ones((3, 4)), np.zeros((3, 4))) is None


def test_every_shipped_study_is_understood() -> None:
    assert shipped_studies() == ["budget", "budget-loop", "curriculum", "find", "horizon", "memory", "memory-abca"]
    for name in shipped_studies():
        study, small = read_study(name), read_study(name, smoke=True)
        assert len(study.seeds) >= 3
        assert len(small.seeds) == 1
        for condition in study.conditions:
            assert train_config(small, condition, 0, Path("x")).total_steps < train_config(study, condition, 0, Path("x")).total_steps


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"env.nav_range"', '"env.nav_rang"', r"condition slow: env.nav_rang: there is no setting 'nav_rang'"),
        ("[evaluate]", "[evaluat]", "unknown entries evaluat"),
        ("[conditions.fast]\n", "[other]\n", "unknown entries other"),
        ("seeds = [0, 1]", 'seeds = [0, 1]\nagainst = "fas"', "against 'fas', which is none of its conditions slow, fast"),
        ("title =", "title", "is not TOML"),
        ("total_steps = 64", "total_steps = 0", "total_steps must be at least 1"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_is_trained(file: Path, old: str, new: str, message: str) -> None:
    file.write_text(TINY.replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_study(str(file))


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ('"env.task" = "Find"', "none"),
        ('"env.task" = "GoToImage"', "image"),
        ('"env.goal_obs" = "vector"\n"env.task" = "LoopNav"', "vector"),
        ('"env.goal_obs" = "vector"', "vector"),
    ],
)
def test_a_task_shows_its_goal_in_its_own_way_unless_told(file: Path, settings: str, shown: str) -> None:
    file.write_text(TINY.replace("[base]\n", f"[base]\n{settings}\n"))
    assert train_config(read_study(str(file)), "slow", 0, Path("x")).env.settled().goal_obs == shown


def test_there_is_no_such_study() -> None:
    with pytest.raises(ValueError, match="shipped ones: budget, budget-loop, curriculum, find, horizon, memory, memory-abca"):
        read_study("memories")


def test_a_study_from_its_file_to_its_page(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = run_study(StudyConfig(str(file), out=out))
    assert [(c["condition"], c["seed"], c["steps"], len(c["success"])) for c in report["cells"]] == [
        ("slow", 0, 64, 3), ("fast", 0, 64, 3), ("slow", 1, 64, 3), ("fast", 1, 64, 3),
    ]  # fmt: skip
    assert [e["step"] for e in report["cells"][0]["evaluations"]] == [32, 64]
    assert [(d["condition"], d["over"]) for d in report["differences"]] == [("fast", "slow")]
    assert [row[0] for row in study_rows(report)] == ["slow", "fast"]
    page = (out / "study.html").read_text()
    assert "Does &lt;b&gt; it work?" in page
    assert not re.search(r"\{\{\w+\}\}", page)
    assert page.count("<svg") == 3

    before = {path: path.stat().st_mtime_ns for path in out.rglob("policy.zip")}
    again = run_study(StudyConfig(str(file), out=out))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("policy.zip")} == before, "nothing is trained twice"
    assert again["conditions"] == json.loads(json.dumps(report["conditions"]))
    more = run_study(StudyConfig(str(file), out=out, seeds=(2,)))
    assert list(more["study"]["seeds"]) == [0, 1, 2], "seeds are added"
    assert len(more["cells"]) == 6 and more["cells"][:4] == json.loads(json.dumps(report["cells"]))
    file.write_text(TINY.replace("1e-2", "2e-2"))
    with pytest.raises(CheckpointError, match="holds another study"):
        run_study(StudyConfig(str(file), out=out))


def test_ray_is_asked_for_by_name(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'worldpack-env\[ray\]'"):
        run_study(StudyConfig(str(file), out=tmp_path / "out", ray=True, smoke=True))


@pytest.mark.parametrize("name", ["budget", "budget-loop", "curriculum", "find", "horizon", "memory", "memory-abca"])
def test_the_small_version_of_every_shipped_study_runs(name: str, tmp_path: Path) -> None:
    report = run_study(StudyConfig(name, out=tmp_path, smoke=True))
    study = read_study(name, smoke=True)
    assert [row[0] for row in study_rows(report)] == list(study.conditions)
    assert all(len(cell["success"]) == 4 and cell["evaluations"] for cell in report["cells"])
    assert "small version" in (tmp_path / "study.html").read_text()
