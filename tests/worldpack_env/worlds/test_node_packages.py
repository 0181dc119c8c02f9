"""Installing the npm packages, with an `npm` that succeeds, fails or hangs."""

import json
import os
import time
from pathlib import Path

import pytest

from worldpack_env.worlds import BackendUnavailable, make_world, node_packages

NODE = "#!/bin/sh\necho v20.1.0\n"
# Lays out what the real packages hold as far as pruning looks at it.
NPM = """#!/bin/sh
data=node_modules/minecraft-data/minecraft-data/data
for v in 1.16.4 1.16.2 1.8 common; do mkdir -p $data/pc/$v; echo '{}' > $data/pc/$v/blocks.json; done
mkdir -p $data/bedrock/1.20 $data/bedrock/common
echo '{"pc": {"1.16.4": {"blocks": "pc/1.16.2", "version": "pc/1.16.4"}, "1.16.2": {"tints": "pc/1.16.2"}}}' > $data/dataPaths.json
public=node_modules/prismarine-viewer/public
mkdir -p $public/textures/1.8.8 $public/blocksStates node_modules/three
for v in 1.8.8 1.16.4; do echo x > $public/textures/$v.png; echo x > $public/blocksStates/$v.json; done
head -c 100000 /dev/zero > node_modules/three/three.js
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a folder on PATH for stand-ins of node and npm."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    put(folder / "node", NODE)
    put(folder / "npm", NPM)
    return folder


def put(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def left_behind() -> list[str]:
    root = node_packages.cache_folder().parent
    return sorted(entry.name for entry in root.iterdir()) if root.is_dir() else []


def test_install_prunes_and_is_found_again(programs: Path) -> None:
    assert node_packages.missing_packages() is not None
    lines: list[str] = []
    before, after = node_packages.install(lines.append)
    assert before > 100_000 > after
    assert lines
    folder = node_packages.cache_folder()
    assert left_behind() == [folder.name]
    data = folder / "node_modules" / "minecraft-data" / "minecraft-data" / "data"
    assert sorted(p.name for p in (data / "pc").iterdir()) == ["1.16.2", "1.16.4", "common"]
    assert sorted(p.name for p in (data / "bedrock").iterdir()) == ["common"]
    assert sorted(p.name for p in node_packages.atlas_path().parent.iterdir()) == ["1.16.4.png"]
    assert not (folder / "node_modules" / "three").exists()
    assert node_packages.missing_packages() is None
    assert node_packages.command()[1] == {"NODE_PATH": str(folder / "node_modules")}
    again, same = node_packages.install(lines.append)
    assert again == same


def test_a_damaged_folder_is_replaced(programs: Path) -> None:
    node_packages.install(lambda line: None)
    node_packages.atlas_path().unlink()
    assert node_packages.missing_packages() is not None
    node_packages.install(lambda line: None)
    assert node_packages.missing_packages() is None


@pytest.mark.parametrize(
    ("npm", "words"),
    [
        ("#!/bin/sh\necho 'ECONNREFUSED registry'\nexit 1\n", "status 1: ECONNREFUSED registry"),
        ("#!/bin/sh\nsleep 60\n", "did not finish within 1 s"),
    ],
)
def test_npm_that_fails_leaves_nothing(programs: Path, npm: str, words: str) -> None:
    put(programs / "npm", npm)
    began = time.monotonic()
    with pytest.raises(BackendUnavailable, match=words):
        node_packages.install(lambda line: None, timeout=1.0)
    assert time.monotonic() - began < 20
    assert left_behind() == []


def test_what_a_killed_installation_left_is_removed_later(programs: Path) -> None:
    old = node_packages.cache_folder().parent / "node-0123.1.tmp"
    old.mkdir(parents=True)
    os.utime(old, (0, 0))
    young = old.with_name("node-0123.2.tmp")
    young.mkdir()
    node_packages.install(lambda line: None)
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize(
    ("node", "words"),
    [("#!/bin/sh\necho v12.22.9\n", "is version 12.22.9, expected 18"), ("#!/bin/sh\necho hello\n", "does not tell its version")],
)
def test_an_old_node_is_named(programs: Path, node: str, words: str) -> None:
    put(programs / "node", node)
    with pytest.raises(BackendUnavailable, match=words):
        node_packages.install(lambda line: None)


def test_a_world_without_its_packages_says_the_command(programs: Path) -> None:
    with pytest.raises(BackendUnavailable, match=r"npm packages are not installed in .*; run: worldpack doctor minecraft --install"):
        make_world("minecraft")


def test_a_world_without_node_says_the_command(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (programs / "node").unlink()
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(BackendUnavailable, match=r"no `node` on PATH; run: sudo apt-get install"):
        make_world("minecraft")
    assert [missing.what.split()[3] for missing in node_packages.missing_programs()] == ["`node`"]


def test_the_lock_file_pins_every_package_by_checksum() -> None:
    lock = json.loads((node_packages.SCRIPTS / "package-lock.json").read_text())
    wanted = json.loads((node_packages.SCRIPTS / "package.json").read_text())["dependencies"]
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert lock["packages"][""]["dependencies"] == wanted
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())
    for name, version in wanted.items():
        assert packages[f"node_modules/{name}"]["version"] == version


def test_no_cache_folder_is_made_by_looking(programs: Path) -> None:
    node_packages.missing_packages()
    assert not node_packages.cache_folder().exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", "relative")
        assert node_packages.cache_folder().is_relative_to(Path.home())
