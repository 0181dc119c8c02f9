"""The wheel holds what the tree holds."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "worldpack_model": ROOT / "model" / "worldpack_model",
    "worldpack_env": ROOT / "worldpack_env",
    "worldpack_agents": ROOT / "agents" / "worldpack_agents",
}


def test_wheel_is_complete(tmp_path: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", *map(str, FOLDERS.values())], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    copy = tmp_path / "tree"
    for name in subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(copy)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {name.removeprefix("model/").removeprefix("agents/") for name in tracked if (ROOT / name).is_file()}
    assert expected - inside == set()
    assert "worldpack_model/py.typed" in inside
