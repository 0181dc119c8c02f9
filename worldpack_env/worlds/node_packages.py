"""The npm packages of the minecraft world: where they are kept, what is missing, and how they get there.

They live in a folder of the user's cache, ``worldpack-env/node-<hash of the lock file>``, so every version of this package finds its own. Nothing
in them is ours to ship: prismarine-viewer holds Mojang's textures.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from worldpack_env.worlds import BackendUnavailable

VERSION: Final = "1.16.4"
"""Minecraft's version."""
SCRIPTS: Final = Path(__file__).with_name("node")
"""Our scripts, ``package.json`` and the lock file."""
INSTALL: Final = "worldpack doctor minecraft --install"
OLDEST_NODE: Final = 18
LIBRARIES: Final = "sudo apt-get install -y libegl1 libegl-mesa0 libgl1-mesa-dri"
"""Installs what drawing without a display needs, on Debian and Ubuntu."""
NODE_HINT: Final = "sudo apt-get install -y nodejs npm (or another way to Node.js 18 or newer, see nodejs.org)"
"""Installs node, on Debian and Ubuntu."""
_MARK: Final = "worldpack-complete.json"
_STALE_SECONDS: Final = 3600.0


class Missing(NamedTuple):
    """Something that the minecraft world needs and has not."""

    what: str
    """What is missing, as a sentence without its full stop."""
    command: str
    """What to do next."""


def cache_folder() -> Path:
    """Where the packages of this version are, or would be: in ``$XDG_CACHE_HOME``, else ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME") or ""
    base = Path(root) if Path(root).is_absolute() else Path.home() / ".cache"
    lock = hashlib.sha256((SCRIPTS / "package-lock.json").read_bytes()).hexdigest()
    return base / "worldpack-env" / f"node-{lock[:12]}"


def atlas_path() -> Path:
    """The picture of all block textures, a PNG of 512 x 512 pixels with alpha."""
    return cache_folder() / "node_modules" / "prismarine-viewer" / "public" / "textures" / f"{VERSION}.png"


def node_program() -> str | None:
    """Path of ``node``; None if there is none on ``PATH``."""
    return shutil.which("node")


def node_version(program: str) -> tuple[int, ...] | None:
    """Version of a ``node``, such as (20, 20, 2); None if it does not tell within 10 s."""
    try:
        told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(r"v(\d+)\.(\d+)\.(\d+)", told.strip())
    return tuple(int(part) for part in found.groups()) if found else None


def missing_packages() -> Missing | None:
    """Says so if the npm packages are not there as a whole."""
    folder = cache_folder()
    if (folder / _MARK).is_file() and atlas_path().is_file():
        return None
    return Missing(f"the npm packages are not installed in {folder}", INSTALL)


def missing_programs() -> list[Missing]:
    """What is missing to install and run: node, a new enough one, npm."""
    node = node_program()
    version = node_version(node) if node else None
    found = []
    if node is None:
        found.append(Missing("there is no `node` on PATH", NODE_HINT))
    elif version is None or version[0] < OLDEST_NODE:
        told = "does not tell its version" if version is None else f"is version {'.'.join(map(str, version))}"
        found.append(Missing(f"{node} {told}, expected {OLDEST_NODE} or newer", NODE_HINT))
    if shutil.which("npm") is None:
        found.append(Missing("there is no `npm` on PATH (it is needed to install only)", "sudo apt-get install -y npm"))
    return found


def command(script: str = "server.js") -> tuple[list[str], dict[str, str]]:
    """Command line and environment of a world's process.

    Args:
        script: which of ours to run: ``server.js`` makes its own world, ``client.js`` joins a server.

    Raises:
        BackendUnavailable: if node or the packages are missing; the message says what to do.
    """
    node = node_program()
    if node is None:
        raise BackendUnavailable(f"The minecraft world cannot run: there is no `node` on PATH; run: {NODE_HINT}")
    missing = missing_packages()
    if missing:
        raise BackendUnavailable(f"The minecraft world cannot run: {missing.what}; run: {missing.command}")
    return [node, str(SCRIPTS / script)], {"NODE_PATH": str(cache_folder() / "node_modules")}


def install(tell: Callable[[str], None], *, timeout: float = 900.0) -> tuple[int, int]:
    """Installs the packages that the lock file names, and keeps of them what Minecraft 1.16.4 needs.

    It happens in a folder beside the final one, which appears in one move when all is done; an interrupted run leaves nothing half done.

    Args:
        tell: called with a line about every few seconds.
        timeout: seconds that npm may take.

    Returns:
        Bytes of the packages before and after pruning; twice the same if they were installed already.

    Raises:
        BackendUnavailable: if node or npm are missing, or npm fails or takes too long.
    """
    for missing in missing_programs():
        raise BackendUnavailable(f"The npm packages cannot be installed: {missing.what}; run: {missing.command}")
    folder = cache_folder()
    if missing_packages() is None:
        size = folder_bytes(folder)
        return size, size
    folder.parent.mkdir(parents=True, exist_ok=True)
    _clear_stale(folder.parent)
    work = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(SCRIPTS / name, work / name)
        _run_npm(work, tell, timeout)
        before = folder_bytes(work)
        tell(f"pruning {before / 1e6:.0f} MB to what Minecraft {VERSION} needs")
        prune(work / "node_modules")
        after = folder_bytes(work)
        (work / _MARK).write_text(json.dumps({"bytes_before": before, "bytes_after": after}))
        if folder.exists() and missing_packages() is not None:
            shutil.rmtree(folder)  # damaged
        try:
            work.rename(folder)
        except OSError:
            if missing_packages() is not None:  # else another process was quicker
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return before, after


def _run_npm(work: Path, tell: Callable[[str], None], timeout: float) -> None:
    """Runs ``npm ci`` in a folder, in a process group of its own that ends with it."""
    words = ["npm", "ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--loglevel=error"]
    log = work / "npm.log"
    began = time.monotonic()
    with open(log, "wb") as output:
        process = subprocess.Popen(words, cwd=work, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(3.0)
                    break
                waited = time.monotonic() - began
                if waited > timeout:
                    raise BackendUnavailable(f"npm did not finish within {timeout:g} s; check the network and run it again: {INSTALL}")
                tell(f"npm ci: {waited:.0f} s, {folder_bytes(work) / 1e6:.0f} MB so far (about 900 MB before pruning)")
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode != 0:
        words_of_npm = log.read_text(errors="replace").strip()[-600:]
        raise BackendUnavailable(
            f"npm ended with status {process.returncode}: {words_of_npm or 'it said nothing'}; mend that and run again: {INSTALL}"
        )
    log.unlink()


def prune(modules: Path) -> None:
    """Removes from ``node_modules`` what the world does not use: other versions of Minecraft, and the viewer's browser half."""
    data = modules / "minecraft-data" / "minecraft-data" / "data"
    paths = json.loads((data / "dataPaths.json").read_text())
    # models.js asks for the tints of 1.16.2.
    keep = {data / path for version in (VERSION, "1.16.2") for path in paths["pc"][version].values()}
    keep |= {data / edition / "common" for edition in ("pc", "bedrock")}
    for folder in _children(data / "pc", data / "bedrock"):
        if folder not in keep:
            shutil.rmtree(folder)
    viewer = modules / "prismarine-viewer"
    for entry in _children(viewer / "public" / "textures", viewer / "public" / "blocksStates"):
        if entry.name not in (f"{VERSION}.png", f"{VERSION}.json"):
            _remove(entry)
    unused = ("public/index.js", "public/worker.js", "public/index.html", "examples", "test", "viewer/lib/entity", "viewer/lib/missing_texture.png")
    for name in unused:
        _remove(viewer / name)
    # What the viewer draws in a browser with, and what no package here loads.
    for name in (
        "three",
        "three.meshline",
        "rxjs",
        "socket.io",
        "socket.io-client",
        "engine.io",
        "engine.io-client",
        "express",
        "@types",
        "@tweenjs",
    ):
        _remove(modules / name)


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder; files that vanish meanwhile count nothing."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total


def _children(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        yield from list(folder.iterdir()) if folder.is_dir() else []


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _clear_stale(parent: Path) -> None:
    """Removes what installations that were killed have left."""
    for folder in parent.glob("node-*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(folder)
