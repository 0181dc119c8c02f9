"""``worldpack doctor minerl``: what MineRL needs, what of it is here, and the one command to run next."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from worldpack_env.worlds import BackendUnavailable
from worldpack_env.worlds.minerl import BACKEND_VARIABLE, PYTHON_VARIABLE, SERVER_VARIABLE, find_python, find_server

_PYTHONS: Final = ("python3.10", "python3.11", "python3.9", "python3.8")
"""Programs that MineRL and MineStudio run in, the best first."""
_ASK: Final = """
import json, sys
from importlib import metadata
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
told = {name: version(name) for name in ("minestudio", "minerl", "numpy", "gym")}
print(json.dumps(dict(told, python="%d.%d" % sys.version_info[:2])))
"""


@dataclass(frozen=True)
class Check:
    """One thing that is needed."""

    what: str
    found: str
    next: str | None = None
    """The command that mends it; None where nothing is to do."""


def check_minerl() -> list[Check]:
    """Looks for everything that the world ``minerl`` needs, in the order it is needed; starts no Minecraft."""
    interpreter, python, told = _interpreter()
    checks = [interpreter]
    if python is None:
        checks.append(Check("MineRL", "not looked for: no interpreter"))
    else:
        checks.append(_package(python, told))
    server = _server()
    if server is not None:
        return [*checks, server]
    if python is not None and told.get("minestudio"):
        checks.append(_minestudio_engine(python))
    return [*checks, _java(), _display()]


def next_command(checks: list[Check]) -> str:
    """The command of the first check that something is to do for; else how to use it."""
    for check in checks:
        if check.next is not None:
            return check.next
    # Without a display Minecraft needs a virtual one; it does no harm beside a real one.
    prefix = "xvfb-run -a " if not os.environ.get("DISPLAY") and not os.environ.get(SERVER_VARIABLE) and sys.platform == "linux" else ""
    return f"{prefix}worldpack compare --world minerl --agents random --episodes 2 --num-envs 1"


def _interpreter() -> tuple[Check, str | None, dict[str, Any]]:
    """The check, the interpreter where there is one, and what it tells of itself."""
    what = f"interpreter ({PYTHON_VARIABLE})"
    try:
        python = find_python()
    except BackendUnavailable as error:
        here = next((name for name in _PYTHONS if _runs(name)), None)
        venv = Path.home() / "minerl-python"
        if os.environ.get(PYTHON_VARIABLE):
            return Check(what, str(error), f"unset {PYTHON_VARIABLE}; worldpack doctor minerl"), None, {}
        if (venv / "bin" / "python").exists():
            return Check(what, f"not named, but there is {venv}", f"export {PYTHON_VARIABLE}={venv}/bin/python"), None, {}
        if shutil.which("conda"):
            make = "conda create -y -n minestudio -c conda-forge python=3.10 openjdk=8 && conda run -n minestudio pip install minestudio"
            return Check(what, "not named", f"{make} && export {PYTHON_VARIABLE}=$(conda run -n minestudio which python)"), None, {}
        if here is None:
            found = "not named, and no Python from 3.8 to 3.11 is here"
            return Check(what, found, "install Miniforge (https://conda-forge.org/download), then run: worldpack doctor minerl"), None, {}
        make = f"{here} -m venv {venv} && {venv}/bin/pip install minestudio && export {PYTHON_VARIABLE}={venv}/bin/python"
        return Check(what, f"not named; {here} can be used", make), None, {}
    try:
        done = subprocess.run([python, "-c", _ASK], capture_output=True, text=True, timeout=60, check=True)
        told: dict[str, Any] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return Check(what, f"{python} does not run as a Python ({type(error).__name__})", f"export {PYTHON_VARIABLE}=/path/to/python3.10"), None, {}
    major, _, minor = told["python"].partition(".")
    good = (3, 8) <= (int(major), int(minor)) <= (3, 11)
    next_step = None if good else f"conda create -y -n minestudio -c conda-forge python=3.10 openjdk=8  # {told['python']} is not from 3.8 to 3.11"
    return Check(what, f"{python}, Python {told['python']}", next_step), python, told


def _runs(name: str) -> bool:
    """True if the Python ``name`` runs; pyenv leaves programs in PATH that do not."""
    try:
        return subprocess.run([name, "-c", "pass"], capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _package(python: str, told: dict[str, Any]) -> Check:
    installed = [f"{name} {told[name]}" for name in ("minestudio", "minerl", "gym", "numpy") if told[name]]
    if not told["minestudio"] and not told["minerl"]:
        return Check("MineRL", f"neither minestudio nor minerl is in {python}", f"{python} -m pip install minestudio")
    numpy = tuple(int(part) for part in (told["numpy"] or "0.0").split(".")[:2])
    if not told["minestudio"] and numpy >= (1, 24):
        return Check("MineRL", ", ".join(installed), f"{python} -m pip install 'numpy<1.24'")
    return Check("MineRL", ", ".join(installed) + f" (backend: {os.environ.get(BACKEND_VARIABLE, 'auto')})")


def _server() -> Check | None:
    """The server in place of Minecraft, where one is named."""
    try:
        port = find_server()
    except ValueError as error:
        return Check("server", str(error), f"unset {SERVER_VARIABLE}")
    if port is None:
        return None
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2.0).close()
    except OSError:
        return Check("server", f"nothing listens on port {port}", f"python -m worldpack_env.worlds.malmo_server --port {port}")
    return Check("server", f"listens on port {port}, so no Minecraft, Java or display is needed")


def _minestudio_engine(python: str) -> Check:
    home = Path(os.environ.get("MINESTUDIO_DIR") or Path(tempfile.gettempdir()) / "MineStudio")
    jar = home / "engine" / "build" / "libs" / "mcprec-6.13.jar"
    if jar.exists():
        return Check("MineStudio's engine", str(jar))
    found = f"not in {home}" + ("" if os.environ.get("MINESTUDIO_DIR") else " (set MINESTUDIO_DIR to keep it elsewhere than in temporary files)")
    fetch = "from minestudio.simulator.entry import check_engine; check_engine(skip_confirmation=True)"
    return Check("MineStudio's engine", found, f'{python} -c "{fetch}"')


def _java() -> Check:
    mend = "conda install -y -c conda-forge openjdk=8"
    if not shutil.which("conda"):
        mend = "install Temurin 8 (https://adoptium.net/temurin/releases/?version=8) and put its bin folder first in PATH"
    java = shutil.which("java")
    if java is None:
        return Check("Java 8", "no java in PATH", mend)
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return Check("Java 8", f"{java} does not run", mend)
    lines = (done.stderr or done.stdout).strip().splitlines()
    line = next((line for line in lines if " version " in line), lines[0])  # before it stands what JAVA_TOOL_OPTIONS adds
    return Check("Java 8", f"{java}: {line}", None if '"1.8' in line else mend)


def _display() -> Check:
    if sys.platform != "linux":
        return Check("display", f"{sys.platform} has its own")
    if os.environ.get("DISPLAY"):
        return Check("display", f"DISPLAY={os.environ['DISPLAY']}")
    if shutil.which("xvfb-run"):
        return Check("display", "none, but xvfb-run can make one: put `xvfb-run -a` before commands")
    return Check("display", "no DISPLAY and no xvfb-run", "sudo apt-get install -y xvfb")
