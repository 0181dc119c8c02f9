"""The numbered examples run, with tiny settings and an untrained model."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from worldpack_model.checkpoint import save_model
from worldpack_model.config import PRESETS
from worldpack_model.world_model import WorldPack

ROOT = Path(__file__).parents[1]


def run(script: str, *arguments: object, cwd: Path) -> str:
    paths = os.pathsep.join(str(ROOT / folder) for folder in ("model", ".", "agents"))
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / script), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "debug"
    save_model(WorldPack(PRESETS["debug"]).eval(), folder)
    return folder


def test_train_then_compare(tmp_path: Path, model: Path) -> None:
    run("01_train_ppo_in_imagination.py", "--model", model, "--num-envs", 2, "--num-starts", 2, "--steps", 16, cwd=tmp_path)
    assert (tmp_path / "agent.zip").is_file()
    small = ("--model", model, "--starts", 2, "--max-episode-steps", 5)
    for agent in ((), ("--agent", "agent.zip")):
        table = run("02_compare_with_engine.py", *small, *agent, cwd=tmp_path)
        rows = [line.split() for line in table.splitlines()[-2:]]
        assert [row[0] for row in rows] == ["imagined", "engine"]
        assert all(0 <= float(number) <= 1 for row in rows for number in row[1:])


def test_record_and_inspect(tmp_path: Path) -> None:
    said = run("03_record_and_inspect.py", "--out", "episodes", "--episodes", 2, cwd=tmp_path)
    assert said.count("the way home begins at frame") == 2
    assert (tmp_path / "episodes" / "strip.png").stat().st_size > 1000


def test_plan_with_forks(tmp_path: Path, model: Path) -> None:
    small = ("--slots", 4, "--horizon", 3, "--rounds", 1, "--played", 2, "--max-episode-steps", 5)
    said = run("04_plan_with_forks.py", "--model", model, *small, cwd=tmp_path).splitlines()
    assert said[0].startswith("the goal is ")
    assert [line.split(":")[0].split()[-1] for line in said[1:-1]] == sorted({line.split(":")[0].split()[-1] for line in said[1:-1]}, key=int)
    assert re.fullmatch(r"the same actions in the engine end \d+\.\d blocks from the goal(, reached)?", said[-1])


def test_python_of_the_readme(tmp_path: Path, model: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for shown, small in (("num_envs=16", f"num_envs=2, num_starts=2, model={str(model)!r}"), ("n_steps=64", "n_steps=8"), ("50_000", "16")):
        assert code.count(shown) == 1
        code = code.replace(shown, small)
    script = tmp_path / "readme.py"
    script.write_text(code)
    run(str(script), cwd=tmp_path)
    assert (tmp_path / "agent.zip").is_file()


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text()
    scripts = sorted((ROOT / "examples").glob("[0-9]*.py"))
    assert scripts
    assert [script.name for script in scripts if f'"{script.name}"' not in text] == []
