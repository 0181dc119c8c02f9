"""`worldpack doctor minecraft`: what is missing and the next command, in the order in which to mend it."""

from pathlib import Path

import pytest

from worldpack_agents.cli import main
from worldpack_agents.doctor_minecraft import check_minecraft, next_command


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an empty cache and nothing on PATH; returns the folder that PATH names."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def put(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_the_next_command_is_the_first_that_is_needed(bare: Path) -> None:
    assert next_command(check_minecraft()).startswith("sudo apt-get install -y nodejs npm")
    put(bare / "node", "echo v12.0.0")
    assert "12.0.0" in check_minecraft()[0][1]
    put(bare / "node", "echo v20.0.0")
    rows = check_minecraft()
    assert rows[0][2] == ""
    assert next_command(rows) == "sudo apt-get install -y npm"
    put(bare / "npm", "exit 1")
    assert next_command(check_minecraft()) == "worldpack doctor minecraft --install"


def test_the_command_fails_with_the_next_command(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "minecraft"]) == 2
    told = capsys.readouterr()
    assert "there is no `node` on PATH" in told.out
    assert told.err.startswith("worldpack: The minecraft world cannot run yet; run: sudo apt-get install")
    assert main(["doctor", "minecraft", "--install"]) == 2
    assert "cannot be installed: there is no `node` on PATH" in capsys.readouterr().err
    assert main(["doctor", "mincraft"]) == 2
    assert "doctor takes the name of an engine" in capsys.readouterr().err
    assert main(["doctor", "--help"]) == 0
