"""What the minecraft world needs: what is there, what is missing and the next command; and installing its npm packages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from worldpack_env.worlds import BackendUnavailable, node_packages


@dataclass(frozen=True)
class DoctorMinecraftConfig:
    """Says what the minecraft world needs and has; exits with an error if something is missing."""

    install: bool = False
    """Download the npm packages into the user's cache (about 830 MB) and keep the 25 MB that are used."""


Row = tuple[str, str, str]
"""What, what was found, and the next command or nothing."""


def check_minecraft() -> list[Row]:
    """Looks at everything the minecraft world needs, in the order in which to mend it."""
    return [_node(), _npm(), _packages(), _drawing()]


def next_command(rows: list[Row]) -> str:
    """The first command that has not been run yet; empty if all is there."""
    return next((command for _, _, command in rows if command), "")


def doctor_minecraft(config: DoctorMinecraftConfig, tell: Callable[[str], None]) -> list[Row]:
    """Installs what the config asks for, and looks at the rest.

    Args:
        config: what to do.
        tell: called with lines about the installation.

    Raises:
        BackendUnavailable: if the packages cannot be installed.
    """
    if config.install:
        before, after = node_packages.install(tell)
        where = node_packages.cache_folder()
        if before == after:
            tell(f"already installed in {where}, {after / 1e6:.0f} MB")
        else:
            tell(f"installed in {where}: {before / 1e6:.0f} MB, pruned to {after / 1e6:.0f} MB")
    return check_minecraft()


def _node() -> Row:
    program = node_packages.node_program()
    missing = [m for m in node_packages.missing_programs() if "npm" not in m.what]
    if missing or program is None:
        return "node", missing[0].what if missing else "not found", missing[0].command if missing else node_packages.NODE_HINT
    return "node", f"{program}, {'.'.join(map(str, node_packages.node_version(program) or ()))}", ""


def _npm() -> Row:
    missing = [m for m in node_packages.missing_programs() if "`npm`" in m.what]
    if missing and node_packages.missing_packages() is None:
        return "npm", "not found, and not needed any more", ""
    return ("npm", missing[0].what, missing[0].command) if missing else ("npm", "found", "")


def _packages() -> Row:
    missing = node_packages.missing_packages()
    folder = node_packages.cache_folder()
    if missing:
        return "npm packages", missing.what, missing.command
    return "npm packages", f"{folder}, {node_packages.folder_bytes(folder) / 1e6:.0f} MB", ""


def _drawing() -> Row:
    import importlib.util

    from worldpack_env.worlds.mesh_renderer import device_description

    if importlib.util.find_spec("moderngl") is None:
        return "moderngl, EGL", "moderngl is not installed", "pip install 'worldpack-env[minecraft]'"
    try:
        return "moderngl, EGL", device_description(), ""
    except BackendUnavailable as error:
        return "moderngl, EGL", str(error), node_packages.LIBRARIES
