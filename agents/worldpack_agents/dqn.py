"""Value-based agents: settings of DQN and QR-DQN, and their replay buffer within bounds and on disk.

The buffer lies in the run folder as ``replay/step_<steps>.npz``, arrays only, beside the checkpoint it belongs to; only the newest is
kept, and none once the run is finished. It is written before its checkpoint is, so that after a kill at any moment the newest
checkpoint has its buffer and the run goes on exactly. Where the file is gone or damaged, a continued run fills a new buffer with random actions for
``learning_starts`` steps before it learns again.
"""

from __future__ import annotations

import logging
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from gymnasium import spaces

log = logging.getLogger(__name__)

FOLDER: Final = "replay"
_ARRAYS: Final = ("actions", "rewards", "dones", "timeouts")


@dataclass(frozen=True)
class DQNConfig:
    """Settings of DQN (Mnih et al. 2015) and QR-DQN (Dabney et al. 2018)."""

    buffer_size: int = 20_000
    """Transitions that the replay buffer holds; two 64 x 64 pictures each are 25 kB, so this many take half a GB, and as much on disk."""
    buffer_gb: float = 2.0
    """Memory that the buffer may take at most, in GB; a larger one is refused before it is made."""
    learning_starts: int = 1000
    """Env steps of random actions before anything is learned."""
    batch_size: int = 128
    """Transitions of a minibatch."""
    gradient_steps: int = 4
    """Minibatches after every step of all slots."""
    learning_rate: float = 1e-3
    """Adam's learning rate at the start."""
    final_learning_rate: float = 2e-4
    """Learning rate at the end; it falls on a straight line."""
    gamma: float = 0.97
    """Discount of an env step."""
    target_update: int = 500
    """Env steps between two updates of the target network."""
    exploration_fraction: float = 0.3
    """Share of the training in which the share of random actions falls."""
    exploration_initial: float = 1.0
    """Share of random actions at the start."""
    exploration_final: float = 0.05
    """Share of random actions at the end."""
    max_grad_norm: float = 10.0
    """Length to which gradients are cut."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: if one is out of bounds; the message names it.
        """
        for name in ("buffer_size", "batch_size", "gradient_steps", "target_update"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("gamma", "exploration_fraction", "exploration_initial", "exploration_final"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, not {getattr(self, name)}.")
        if self.learning_starts < 0:
            raise ValueError(f"learning_starts must not be below 0, got {self.learning_starts}.")
        if self.exploration_fraction == 0:
            raise ValueError("exploration_fraction must be above 0; for no exploration set exploration_initial to exploration_final.")
        if not self.learning_rate > 0 or not self.final_learning_rate >= 0:
            raise ValueError("learning_rate must be above 0 and final_learning_rate not below 0.")


def check_buffer(config: DQNConfig, observation: spaces.Dict, num_envs: int) -> None:
    """Checks that the buffer holds a step of every slot, and fits its bound.

    Raises:
        ValueError: if it does not; the message says what to change.
    """
    if config.buffer_size < num_envs:
        raise ValueError(f"A replay buffer of {config.buffer_size} transitions holds no step of {num_envs} slots; raise dqn.buffer_size.")
    size = sum(int(np.prod(space.shape or ())) * np.dtype(space.dtype).itemsize for space in observation.spaces.values())
    needed = config.buffer_size * (2 * size + 20) / 1e9
    if needed > config.buffer_gb:
        raise ValueError(
            f"A replay buffer of {config.buffer_size} transitions takes {needed:.2f} GB, more than {config.buffer_gb:g}; "
            "lower dqn.buffer_size or raise dqn.buffer_gb."
        )


def save_buffer(buffer: Any, run: Path, steps: int) -> None:
    """Writes what a ``DictReplayBuffer`` holds in one move, as of ``steps`` env steps."""
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    held = buffer.buffer_size if buffer.full else buffer.pos
    arrays = {name: getattr(buffer, name)[:held] for name in _ARRAYS}
    for part in ("observations", "next_observations"):
        arrays |= {f"{part}.{key}": value[:held] for key, value in getattr(buffer, part).items()}
    temporary = folder / f".step_{steps:09d}.{os.getpid()}.new"
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, position=np.array([buffer.pos, int(buffer.full)]), **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / f"step_{steps:09d}.npz")


def drop_buffers(run: Path, steps: int | None) -> None:
    """Deletes all buffers of a run but that of ``steps`` (None: all, for a run that is finished), half-written ones as well."""
    for path in (run / FOLDER).glob("*"):
        if steps is None or path.name != f"step_{steps:09d}.npz":
            path.unlink(missing_ok=True)


def load_buffer(buffer: Any, run: Path, steps: int) -> bool:
    """Reads the buffer of ``steps`` env steps back; False, and the buffer stays empty, where there is no sound one."""
    path = run / FOLDER / f"step_{steps:09d}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            pos, full = (int(n) for n in file["position"])
            held = buffer.buffer_size if full else pos
            found = {name: file[name] for name in file.files if name != "position"}
        targets = {name: getattr(buffer, name) for name in _ARRAYS}
        for part in ("observations", "next_observations"):
            targets |= {f"{part}.{key}": value for key, value in getattr(buffer, part).items()}
        if found.keys() != targets.keys():
            raise ValueError(f"it holds {sorted(found)}")
        for name, target in targets.items():
            if found[name].shape != (held, *target.shape[1:]) or found[name].dtype != target.dtype:
                raise ValueError(f"{name} is {found[name].shape} {found[name].dtype}")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s is no replay buffer of this run (%s); a new one is filled before learning goes on.", path, error)
        return False
    for name, target in targets.items():
        target[:held] = found[name]
    buffer.pos, buffer.full = pos, bool(full)
    return True
