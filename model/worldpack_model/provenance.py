"""Where numbers come from: machine, versions, commit, weights. Every result file carries this."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, Final

PACKAGES: Final = ("worldpack-env", "numpy", "torch", "gymnasium", "stable-baselines3", "numba", "opencv-python-headless")


def versions() -> dict[str, str]:
    """Versions of Python and of what decides results."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> str | None:
    """The git commit this code is run from, with ``+changes`` where the tree differs; None outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        head = _git(here, "rev-parse", "HEAD")
        return head + ("+changes" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def processor() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """The machine, and how torch uses it."""
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "processor": processor(),
        "cores": cores(),
        "system": platform.platform(),
        "gpu": gpu,
        "torch_threads": torch.get_num_threads(),
        "wait_policy": os.environ.get("OMP_WAIT_POLICY", "unset"),
    }


def weights_id(model: str) -> str:
    """Name and checksum of a world model's weights.

    Raises:
        CheckpointError: if there is no such model.
    """
    from worldpack_model.checkpoint import find_model, weights_digest

    path = find_model(model)
    return f"{path.name}:{weights_digest(path)[:16]}"


def provenance() -> dict[str, Any]:
    """Everything about now and here that a result file should tell."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"made": now, "commit": commit(), "machine": machine(), "versions": versions()}
