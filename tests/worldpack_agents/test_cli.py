"""The command line: help is quick, errors are one sentence that says what to do."""

import subprocess
import sys
from pathlib import Path

import pytest

from worldpack_agents.cli import COMMANDS, _parse, main
from worldpack_agents.train import TrainAgentConfig


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "worldpack_agents", *words], capture_output=True, text=True)


def test_help_lists_every_command_and_loads_no_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys\nfrom worldpack_agents.cli import main\nmain(['--help'])\nsys.exit('torch' in sys.modules)"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    for name in COMMANDS:
        assert name in done.stdout


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("doctor", "bench")])
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert "--" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recrod"], "Did you mean 'record'"),
        (["bench", "sped"], "no benchmark 'sped'"),
        (["train-model", "--data", "{empty}", "--out", "{empty}/run"], "worldpack record"),
        (["train-model", "--data", "{empty}/none", "--out", "{empty}/run"], "none"),
        (["eval-model", "--models", "voxel-65", "--data", "{empty}"], "worldpack record"),
        (["eval-agent", "--agent", "{empty}/nobody", "--in", "real", "--episodes", "1"], "no agent"),
        (["train-agent", "--out", "{empty}/a", "--model", "voxle-64"], "no model 'voxle-64'"),
        (["train-agent", "--out", "{empty}/a", "--world", "nether", "--in", "real"], "nether"),
        (["train-agent", "--out", "{empty}/a", "--nav-range", "1"], "at least 3"),
    ],
)
def test_errors_are_one_sentence(words: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    status = main([word.format(empty=empty) for word in words])
    err = capfd.readouterr().err
    assert status == 2
    assert message in err
    assert "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith("worldpack: ")


def test_debug_shows_where() -> None:
    done = run("train-agent", "--out", "/tmp/never", "--model", "voxle-64", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_info_prints_the_token_budget(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--names", "voxel-64", "base"]) == 0
    out = capsys.readouterr().out
    for text in ("4.12 M", "183.38 M", "844", "4.31", "2 x 2", "paper, v1"):
        assert text in out, text


@pytest.mark.parametrize(("words", "shown"), [([], "compass"), (["Explore"], "none"), (["Find"], "none"), (["GoToImage"], "image")])
def test_a_task_that_is_named_shows_its_goal_in_its_own_way(words: list[str], shown: str) -> None:
    config = _parse(TrainAgentConfig, ["--out", "x", *(["--task", *words] if words else [])], "train-agent")
    assert config.env.settled().goal_obs == shown
