"""``worldpack doctor minerl`` names the first thing that is missing and the command that mends it."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from worldpack_agents.cli import main
from worldpack_agents.doctor_minerl import check_minerl, next_command
from worldpack_env.worlds.malmo_server import MalmoServer

Program = Callable[[str, str], Path]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Puts shell scripts into a PATH that holds nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MINESTUDIO_DIR", str(tmp_path / "studio"))
    for name in ("WORLDPACK_MINERL_PYTHON", "WORLDPACK_MINERL_SERVER", "WORLDPACK_MINERL_BACKEND", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)

    def make(name: str, text: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return make


def following() -> str:
    return next_command(check_minerl())


def test_from_nothing_to_ready(program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert "Miniforge" in following()
    python = program("python3.10", """echo '{"minestudio": null, "minerl": null, "numpy": null, "gym": null, "python": "3.10"}'""")
    assert following().startswith("python3.10 -m venv") and "pip install minestudio" in following()
    monkeypatch.setenv("WORLDPACK_MINERL_PYTHON", str(python))
    assert following() == f"{python} -m pip install minestudio"
    program("python3.10", """echo '{"minestudio": null, "minerl": "0.4.4", "numpy": "1.26.4", "gym": "0.19.0", "python": "3.10"}'""")
    assert following() == f"{python} -m pip install 'numpy<1.24'"
    program("python3.10", """echo '{"minestudio": "1.1.6", "minerl": null, "numpy": "1.26.4", "gym": "0.23.1", "python": "3.10"}'""")
    assert following().startswith(f"{python} -c") and "check_engine" in following()
    jar = tmp_path / "studio" / "engine" / "build" / "libs" / "mcprec-6.13.jar"
    jar.parent.mkdir(parents=True)
    jar.touch()
    assert "Temurin 8" in following()
    program("conda", "true")
    assert following() == "conda install -y -c conda-forge openjdk=8"
    program("java", """echo 'openjdk version "17.0.15" 2025-04-15' >&2""")
    assert "openjdk=8" in following(), "another Java is not Java 8"
    program("java", """echo 'openjdk version "1.8.0_412"' >&2""")
    assert "xvfb" in following()
    program("xvfb-run", "true")
    assert following().startswith("xvfb-run -a worldpack compare --world minerl")
    monkeypatch.setenv("DISPLAY", ":0")
    assert following().startswith("worldpack compare --world minerl")


def test_a_python_that_is_too_new(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    python = program("python3", """echo '{"minestudio": "1.1.6", "minerl": null, "numpy": "2.0.0", "gym": null, "python": "3.13"}'""")
    monkeypatch.setenv("WORLDPACK_MINERL_PYTHON", str(python))
    assert "3.13 is not from 3.8 to 3.11" in following()
    program("python3", "exit 3")
    assert following() == "export WORLDPACK_MINERL_PYTHON=/path/to/python3.10"
    monkeypatch.setenv("WORLDPACK_MINERL_PYTHON", "/no/such/python")
    assert "unset" in following()


def test_a_server_in_place_of_minecraft(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    python = program("python3.10", """echo '{"minestudio": null, "minerl": "0.4.4", "numpy": "1.23.5", "gym": "0.19.0", "python": "3.10"}'""")
    monkeypatch.setenv("WORLDPACK_MINERL_PYTHON", str(python))
    with MalmoServer() as server:
        monkeypatch.setenv("WORLDPACK_MINERL_SERVER", str(server.port))
        assert following().startswith("worldpack compare --world minerl"), "no Java and no display are needed"
    assert following() == f"python -m worldpack_env.worlds.malmo_server --port {server.port}"
    monkeypatch.setenv("WORLDPACK_MINERL_SERVER", "elsewhere:9000")
    assert following() == "unset WORLDPACK_MINERL_SERVER"


def test_the_command(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    assert os.environ["PATH"].endswith("bin")
    assert main(["doctor", "minerl"]) == 0
    told = capsys.readouterr().out
    assert "interpreter" in told and "\nNext: " in told
    assert main(["doctor", "minrl"]) == 2
    assert "minrl" in capsys.readouterr().err
    assert main(["doctor", "--help"]) == 0
    assert "minerl" in capsys.readouterr().out
