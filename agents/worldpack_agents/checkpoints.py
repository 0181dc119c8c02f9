"""Agents on disk: ``policy.zip`` (Stable-Baselines3's own format) + ``manifest.json`` with its checksum, written atomically.

A Stable-Baselines3 zip holds cloudpickled objects, and unpickling runs code. A run folder of ours is therefore never unpickled: the policy is rebuilt
from ``config.json`` and only its tensors are read out of the zip (``torch.load(weights_only=True)``). A zip from anywhere else needs ``trust``.

The agents that come with this package (``reference/``) are run folders whose checkpoints hold ``policy.safetensors`` instead: the policy alone, in
bfloat16. ``NAME`` is the newest of them, ``NAME@STEPS`` an earlier one.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import torch
from gymnasium import spaces
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from worldpack_agents.policies import Algorithm, PolicyConfig, algorithm_class, policy_kwargs
from worldpack_model.checkpoint import CheckpointError, read_manifest, sha256, write_json

log = logging.getLogger(__name__)

FORMAT: Final = 1
POLICY: Final = "policy.zip"
SHIPPED_POLICY: Final = "policy.safetensors"
REFERENCE: Final = Path(__file__).parent / "reference"
"""Agents that come with this package."""
CONFIG: Final = "config.json"
CHECKPOINTS: Final = "checkpoints"
BEST: Final = "best"
"""Folder of the agent that did best in the evaluations of its training."""
_STEP: Final = re.compile(r"step_(\d{9,})")


@dataclass(frozen=True)
class LoadedAgent:
    """A policy ready to act."""

    policy: Any
    """Policy of Stable-Baselines3 in eval mode."""
    recurrent: bool
    """Whether it carries an LSTM state."""
    source: str
    """Where it came from."""
    steps: int | None
    """Env steps it was trained for; None where the file does not tell."""
    digest: str
    """sha256 of the policy file."""
    warm_up: bool = False
    """Whether its state begins after the frames before an episode (see worldpack_agents.warm_up)."""


def space_to_dict(space: spaces.Space[Any]) -> dict[str, Any]:
    """A space as JSON data.

    Raises:
        ValueError: if it is a kind that agents here do not have.
    """
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "entries": {k: space_to_dict(v) for k, v in space.spaces.items()}}
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n)}
    if isinstance(space, spaces.Box):
        low, high = float(space.low.min()), float(space.high.max())
        if not (np.all(space.low == low) and np.all(space.high == high)):
            raise ValueError(f"{space} has different bounds in its entries; agents here have boxes with one low and one high.")
        return {"type": "Box", "low": low, "high": high, "shape": list(space.shape), "dtype": str(space.dtype)}
    raise ValueError(f"A {type(space).__name__} space cannot be written down; use Dict, Box or Discrete.")


def space_from_dict(data: Mapping[str, Any]) -> spaces.Space[Any]:
    """Inverse of :func:`space_to_dict`."""
    kind = data.get("type")
    if kind == "Dict":
        return spaces.Dict({k: space_from_dict(v) for k, v in data["entries"].items()})
    if kind == "Discrete":
        return spaces.Discrete(int(data["n"]))
    if kind == "Box":
        dtype: Any = np.dtype(data["dtype"]).type
        return spaces.Box(data["low"], data["high"], tuple(data["shape"]), dtype)
    raise CheckpointError(f"There is no space of type {kind!r} in a run of ours; the run's {CONFIG} is damaged, use another copy.")


def write_checkpoint(run: Path, steps: int, save: Callable[[Path], None], about: dict[str, Any], *, keep: int = 3, into: str = CHECKPOINTS) -> Path:
    """Writes ``run/checkpoints/step_<steps>`` so that it is either wholly there or not at all, then drops the oldest.

    Args:
        run: the run folder.
        steps: env steps trained so far; the checkpoint's name.
        save: writes the policy to the path it is given.
        about: goes into the manifest.
        keep: how many checkpoints stay.
        into: another folder than ``checkpoints``.
    """
    folder = run / into
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _step_name(steps)
    temporary = folder / f".{path.name}.{os.getpid()}.new"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save(temporary / POLICY)
    manifest = {"format": FORMAT, "files": {POLICY: sha256(temporary / POLICY)}, "steps": steps, **about}
    (temporary / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    for file in (*temporary.iterdir(), temporary):
        _sync(file)
    if path.exists():
        shutil.rmtree(path)
    os.replace(temporary, path)
    _sync(folder)
    others = [other for other in checkpoints(run, into) if other != path]  # what was just written stays, whatever its number
    for old in others[: max(0, len(others) - (keep - 1))]:
        shutil.rmtree(old, ignore_errors=True)
    for torn in folder.glob(".step_*.new"):
        shutil.rmtree(torn, ignore_errors=True)
    return path


def _step_name(steps: int) -> str:
    """Name of the folder of a checkpoint."""
    return f"step_{steps:09d}"


def _steps_of(folder: Path) -> int:
    """Inverse of :func:`_step_name`."""
    return int(folder.name.removeprefix("step_"))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some file systems cannot sync a folder
        pass
    finally:
        os.close(descriptor)


def checkpoints(run: Path, into: str = CHECKPOINTS) -> list[Path]:
    """The checkpoint folders of a run, oldest first."""
    folder = run / into
    found = [p for p in folder.iterdir() if _STEP.fullmatch(p.name)] if folder.is_dir() else []
    return sorted(found, key=_steps_of)


def newest_checkpoint(run: Path, into: str = CHECKPOINTS) -> tuple[Path, dict[str, Any]] | None:
    """The newest sound checkpoint of a run and its manifest; damaged ones are passed over with a warning.

    Raises:
        CheckpointError: if there are checkpoints but all are damaged.
    """
    found = checkpoints(run, into)
    for path in reversed(found):
        try:
            return path, read_manifest(path)
        except CheckpointError as error:
            log.warning("Checkpoint passed over: %s", error)
    if found:
        raise CheckpointError(f"All {len(found)} checkpoints in {run / into} are damaged; train in another folder.")
    return None


def read_run_config(run: Path) -> dict[str, Any]:
    """The ``config.json`` of a run folder.

    Raises:
        CheckpointError: if it is missing or not ours.
    """
    path = run / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{run} is no run of train-agent: it has no {CONFIG}. Give the folder that train-agent wrote.")
    try:
        data = json.loads(path.read_text())
        if not isinstance(data, dict) or not {"config", "observation_space", "action_space"} <= data.keys():
            raise ValueError("keys are missing")
    except ValueError as error:
        raise CheckpointError(f"{path} is not a run's configuration ({error}); use another copy or train again.") from error
    policy = data["config"].get("policy")
    if isinstance(policy, dict) and data["config"].get("algorithm") == "recurrent-ppo":
        policy.setdefault("warm_up", False)  # agents from before there was a warm-up learned without
    return data


def write_run_config(run: Path, data: dict[str, Any]) -> None:
    """Writes the ``config.json`` of a run folder atomically."""
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / CONFIG, data)


def _in_run(path: Path) -> bool:
    """Whether ``path`` is the policy file of a checkpoint in a run folder."""
    return path.name == POLICY and (path.parent / "manifest.json").is_file() and (path.parent.parent.parent / CONFIG).is_file()


def reference_agents() -> tuple[str, ...]:
    """Names of the agents that come with this package, the least trained of each run first."""
    return tuple(f"{run.name}@{_steps_of(step)}" for run in sorted(REFERENCE.glob("*/")) for step in checkpoints(run))


def agent_path(source: str | Path) -> Path:
    """Where an agent is: the path itself, or the folder of one that comes with this package, ``NAME`` or ``NAME@STEPS``."""
    name, at, steps = str(source).partition("@")
    run = REFERENCE / name
    if Path(source).exists() or "/" in name or not (run / CONFIG).is_file():
        return Path(source)
    if not at:
        return run
    return run / CHECKPOINTS / _step_name(int(steps)) if steps.isdecimal() else Path(source)


def ship_agent(run: Path, steps: Sequence[int], out: Path) -> None:
    """Copies some of a run's checkpoints into the folder ``out`` as reference agents: policies alone, in bfloat16.

    Raises:
        CheckpointError: if the run has no such checkpoint.
    """
    data = read_run_config(run)
    data["config"] = {k: v for k, v in data["config"].items() if k not in ("out", "init")}
    write_run_config(out, data)
    for number in steps:
        chosen = run / CHECKPOINTS / _step_name(number)
        read_manifest(chosen)
        tensors = {k: v.bfloat16().contiguous() for k, v in read_policy_tensors(chosen / POLICY).items()}
        # a policy names the tensors that actor and critic share once for each; they are written once
        same = {k: first for k, v in tensors.items() if (first := next(n for n, w in tensors.items() if torch.equal(v, w))) != k and v.numel() > 64}
        tensors = {k: v for k, v in tensors.items() if k not in same}
        folder = out / CHECKPOINTS / chosen.name
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / SHIPPED_POLICY, metadata=same)
        write_json(folder / "manifest.json", {"format": FORMAT, "files": {SHIPPED_POLICY: sha256(folder / SHIPPED_POLICY)}, "steps": number})


def find_checkpoint(path: Path) -> tuple[Path, Path, dict[str, Any]]:
    """The run, checkpoint folder and manifest of an agent.

    Args:
        path: a run folder (its newest checkpoint), a checkpoint folder, a checkpoint's policy file, or the name of an agent of this package.

    Raises:
        CheckpointError: if there is no sound one.
    """
    path = agent_path(path)
    chosen: Path | None
    if path.is_dir():
        run, chosen = (path, None) if (path / CONFIG).is_file() else (path.parent.parent, path)
    elif path.is_file() and _in_run(path):
        run, chosen = path.parent.parent.parent, path.parent
    else:
        raise CheckpointError(f"There is no agent at {path}; give a run folder of train-agent or a policy zip.")
    read_run_config(run)
    if chosen is None:
        newest = newest_checkpoint(run)
        if newest is None:
            raise CheckpointError(f"{run} has no checkpoint yet; let train-agent run longer.")
        chosen, manifest = newest
    else:
        manifest = read_manifest(chosen)
    return run, chosen, manifest


def load_agent(path: str | Path, *, trust: bool = False, device: str = "cpu") -> LoadedAgent:
    """Loads a policy to act with.

    Args:
        path: a run folder, one of its checkpoint folders, the name of an agent that comes with this package, or a Stable-Baselines3 zip of PPO,
            RecurrentPPO, DQN or QR-DQN.
        trust: allow to unpickle a zip that is not part of a run folder; that runs code of whoever made it.
        device: where the policy runs.

    Raises:
        CheckpointError: if there is no sound policy.
        ValueError: if the file would have to be unpickled and ``trust`` is not given.
    """
    path = Path(path)
    if path.is_file() and not _in_run(path):
        return _load_foreign(path, trust=trust, device=device)
    run, chosen, manifest = find_checkpoint(path)
    data = read_run_config(run)
    try:
        algorithm = data["config"]["algorithm"]
        sizes = PolicyConfig(**data["config"]["policy"])
        observation, action = space_from_dict(data["observation_space"]), space_from_dict(data["action_space"])
        steps, digest = int(manifest["steps"]), str(next(iter(manifest["files"].values())))
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{run / CONFIG} or {chosen / 'manifest.json'} lacks {error}; the run is damaged, use another copy.") from error
    kind, name = algorithm_class(algorithm)
    policy = kind.policy_aliases[name](observation, action, lambda _: 0.0, **policy_kwargs(sizes, algorithm)).to(device)
    policy.load_state_dict(read_checkpoint_tensors(chosen, device))
    policy.set_training_mode(False)
    recurrent = algorithm == "recurrent-ppo"
    return LoadedAgent(policy=policy, recurrent=recurrent, warm_up=recurrent and sizes.warm_up, source=str(chosen), steps=steps, digest=digest)


def read_checkpoint_tensors(folder: Path, device: str = "cpu") -> dict[str, Any]:
    """Tensors of the policy in a checkpoint folder.

    Raises:
        CheckpointError: if there are none that can be read.
    """
    path = folder / SHIPPED_POLICY
    if not path.is_file():
        return read_policy_tensors(folder / POLICY, device)
    try:
        with safe_open(path, framework="pt", device=device) as file:
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - it is no mapping
            return tensors | {name: tensors[same] for name, same in (file.metadata() or {}).items()}
    except (SafetensorError, OSError, KeyError) as error:
        raise CheckpointError(f"{path} is no file of tensors ({error}); install the package again.") from error


def read_policy_tensors(path: Path, device: str = "cpu", *, part: str = "policy") -> dict[str, Any]:
    """Tensors of one part (``policy`` or ``policy.optimizer``) of a Stable-Baselines3 zip, without unpickling objects.

    Raises:
        CheckpointError: if the file is not such a zip.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{part}.pth") as file:
            state: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
    except (zipfile.BadZipFile, KeyError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path} is not a policy of Stable-Baselines3 ({error}); use another copy.") from error
    return state


def _load_foreign(path: Path, *, trust: bool, device: str) -> LoadedAgent:
    if not trust:
        raise ValueError(
            f"{path} is not part of a run folder of ours, and loading it runs code of whoever made it; pass --trust if you trust them, "
            "or give the run folder."
        )
    digest = sha256(path)
    failures = []
    for algorithm in get_args(Algorithm):
        try:
            model = algorithm_class(algorithm)[0].load(path, device=device)
        except Exception as error:  # foreign pickles fail in any way
            failures.append(f"{algorithm}: {error}")
            continue
        model.policy.set_training_mode(False)
        return LoadedAgent(
            policy=model.policy, recurrent=algorithm == "recurrent-ppo", source=str(path), steps=int(model.num_timesteps), digest=digest
        )
    raise CheckpointError(f"{path} could not be loaded as PPO, RecurrentPPO, DQN or QR-DQN ({'; '.join(failures)}).")
