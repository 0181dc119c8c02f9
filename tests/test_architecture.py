"""Imports point one way, and cheap imports stay cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "worldpack_model": (ROOT / "model" / "worldpack_model", {"worldpack_env", "worldpack_agents", "gymnasium", "stable_baselines3"}),
    "worldpack_env": (ROOT / "worldpack_env", {"worldpack_agents", "stable_baselines3"}),
    "worldpack_agents": (ROOT / "agents" / "worldpack_agents", set()),
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("package", list(PACKAGES))
def test_imports_point_one_way(package: str) -> None:
    folder, forbidden = PACKAGES[package]
    files = list(folder.rglob("*.py"))
    assert files
    for path in files:
        assert not imported(path) & forbidden, f"{path} imports {imported(path) & forbidden}"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import worldpack_env", "torch"),
        ("import worldpack_model", "gymnasium"),
        ("from worldpack_model import WorldPack", "gymnasium"),
        ("from worldpack_model import WorldPack", "numba"),
        ("import worldpack_agents.cli", "torch"),
    ],
)
def test_cheap_imports(statement: str, absent: str) -> None:
    code = f"{statement}\nimport sys\nsys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0, f"`{statement}` loads {absent}"
