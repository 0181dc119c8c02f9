"""The lock of a folder that is written in: one process at a time works in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(run: Path, work: str) -> Iterator[None]:
    """Makes the folder and keeps a second process from working in it; the lock ends with the process, however it ends.

    Args:
        run: the folder.
        work: what is done in it, for the message: ``trains``, ``records``.

    Raises:
        ValueError: if another process holds it.
    """
    run.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows: no advisory locks, no protection
        yield
        return
    with (run / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"Another process {work} in {run} (process {os.getpid()} asked); wait for it or choose another --out.") from None
        yield
