"""Weights on disk: ``config.json``, a safetensors file for each part and ``manifest.json`` with checksums, written atomically, read strictly.

A file for each part, so that models which share an autoencoder share its file, and a new motion model replaces no other weights.

Nothing is ever unpickled. A folder is complete exactly when its manifest is there and agrees with the files; it is put in place by one rename.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import torch

from worldpack_model.adapter import changed
from worldpack_model.config import ModelConfig, Precision, from_dict, lookup

if TYPE_CHECKING:
    from worldpack_model.autoencoder import Autoencoder
    from worldpack_model.world_model import WorldPack

T = TypeVar("T")
FORMAT = 6
_READS_FROM = {"denoiser": (3, "rotary pairs in another order"), "motion": (5, "a motion model of another kind")}
"""The oldest format whose weights of a part can still be read, and what older ones have."""
_LARGE = 10_000
"""Numbers in a matrix of the motion model that is stored rounded."""
SHIPPED = Path(__file__).parent / "weights"
PARTS = ("autoencoder", "denoiser", "motion")
"""Parts of a model, each in a file of its name."""
ADAPTER = "{}-adapter.safetensors"
"""File of a part's changes of low rank, where it has any (see ``adapter.py``)."""
Adapted = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]
"""A part's own state and the adapter's that changes it."""


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or of another form; the message says which file and what to do."""


def shipped_models() -> list[str]:
    """Names of the models that come with the package."""
    return complete_folders(SHIPPED)


def complete_folders(root: Path) -> list[str]:
    """Names of the folders in ``root`` that have a manifest."""
    return sorted(p.name for p in root.iterdir() if (p / "manifest.json").is_file()) if root.is_dir() else []


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256_by_parts(file)


def _sha256_by_parts(file: Any) -> str:
    digest = hashlib.sha256()
    while part := file.read(1 << 20):
        digest.update(part)
    return digest.hexdigest()


def resolve_device(device: str) -> torch.device:
    """``auto`` takes CUDA where torch sees a GPU, else the CPU; anything else is torch's own name of a device."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"There is no device {device!r}; use 'auto', 'cpu' or 'cuda'.") from error


def bf16_units() -> set[str]:
    """This processor's units that multiply bfloat16: ``avx512_bf16`` for vectors, ``amx_bf16`` for matrices; none where torch cannot tell."""
    units = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return {name for name in ("avx512_bf16", "amx_bf16") if units.get(name)}


def has_bf16_units(device: torch.device) -> bool:
    """Whether products of bfloat16 matrices are much faster than those of float32 there; False where torch cannot tell."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool(bf16_units())


def write_json(path: Path, data: Any) -> None:
    """Writes JSON atomically: a reader sees the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(data, indent=2) + "\n")
    os.replace(temporary, path)


def write_folder(path: Path, files: Mapping[str, dict[str, torch.Tensor] | dict[str, Any]], about: dict[str, Any]) -> None:
    """Writes a checkpoint folder so that it is either wholly there or not at all; :func:`recovered` finds the older one after a kill at any moment.

    Args:
        path: the folder; an older one is replaced.
        files: file name -> tensors (``*.safetensors``) or JSON data (``*.json``).
        about: goes into the manifest beside format and checksums.
    """
    from safetensors.torch import save_file

    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = path.with_name(f".{path.name}.{os.getpid()}.new"), path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    for name, data in files.items():
        if name.endswith(".safetensors"):
            save_file({k: v.detach().cpu().contiguous() for k, v in data.items()}, temporary / name)
        else:
            (temporary / name).write_text(json.dumps(data, indent=2) + "\n")
    manifest = {"format": FORMAT, "files": {name: sha256(temporary / name) for name in files}, **about}
    (temporary / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    for file in temporary.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    if path.exists():
        os.replace(path, old)
    os.replace(temporary, path)
    for left in _left_behind(path):
        shutil.rmtree(left, ignore_errors=True)


def recovered(path: Path) -> bool:
    """Whether a checkpoint folder is there; one that a kill between the two renames of :func:`write_folder` left beside its place is put back."""
    if path.exists():
        return True
    for left in sorted(_left_behind(path.absolute()), key=lambda folder: (folder.suffix == ".new", folder.stat().st_mtime), reverse=True):
        try:
            read_manifest(left)
        except CheckpointError:
            continue
        os.replace(left, path)
        return True
    return False


def _left_behind(path: Path) -> list[Path]:
    """Folders that writing ``path`` makes beside it for a moment, or for good where it was killed."""
    folders = path.parent.iterdir() if path.parent.is_dir() else ()
    return [left for left in folders if left.name.startswith(f".{path.name}.") and left.suffix in (".new", ".old") and left.is_dir()]


def read_manifest(path: Path, *, verify: bool = True) -> dict[str, Any]:
    """Reads and checks the manifest of a checkpoint folder.

    Raises:
        CheckpointError: if it is missing, of a newer format, or a file's checksum differs.
    """
    file = path / "manifest.json"
    if not file.is_file():
        raise CheckpointError(f"{path} is no checkpoint: it has no manifest.json. Give the folder that its training wrote, or train again.")
    try:
        manifest = json.loads(file.read_text())
        files = dict(manifest["files"])
        version = int(manifest["format"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{file} is not a manifest of ours ({error}); the checkpoint is damaged, use another copy.") from error
    if version > FORMAT:
        raise CheckpointError(f"{file} has format {version}, this version reads up to {FORMAT}; upgrade worldpack-env.")
    for name, digest in files.items():
        part = path / name
        if Path(name).name != name:
            raise CheckpointError(f"{file} names {name!r}, which is outside its folder; do not use this checkpoint.")
        if not part.is_file():
            raise CheckpointError(f"{part} is missing; the checkpoint is incomplete, use another copy.")
        if verify and sha256(part) != digest:
            raise CheckpointError(f"{part} does not match its checksum; the file is damaged, use another copy.")
    return dict(manifest)


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Reads a safetensors file.

    Raises:
        CheckpointError: if it is not one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read as safetensors ({error}); use another copy.") from error


def load_state(module: torch.nn.Module, tensors: dict[str, torch.Tensor], where: str) -> None:
    """Loads ``tensors`` into ``module``, strictly: every name, every shape, only finite numbers.

    Raises:
        CheckpointError: naming what does not fit.
    """
    own = module.state_dict()
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or extra:
        raise CheckpointError(f"{where} does not fit this model: missing {missing[:3]}, unknown {extra[:3]}.")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise CheckpointError(f"{where}: {name} has shape {tuple(tensor.shape)}, expected {tuple(own[name].shape)}.")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{where}: {name} holds numbers that are not finite; use another copy.")
    module.load_state_dict(tensors)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimiser's state as tensors named ``optimizer.<parameter>.<name>``; the inverse of :func:`load_optimizer`."""
    states = optimizer.state_dict()["state"]
    return {f"optimizer.{number}.{name}": torch.as_tensor(value) for number, state in states.items() for name, value in state.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Loads an optimiser's state from tensors named ``optimizer.<parameter>.<name>``; its settings stay."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".", 2)
            state.setdefault(int(number), {})[name] = value.clone()  # optimisers change theirs in place
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def save_model(
    model: WorldPack,
    path: Path,
    about: dict[str, Any] | None = None,
    *,
    dtype: torch.dtype = torch.bfloat16,
    adapted: Mapping[str, Adapted] | None = None,
) -> None:
    """Writes ``model`` to folder ``path``; floating-point weights are stored as ``dtype``.

    ``adapted`` has, by name, those parts of which their own state and the adapter's are written instead of what these make together.

    Statistics and the motion model's small tensors stay float32, because poses add up: rounding all of it to bfloat16 moves a body by 0.0007
    blocks a step, rounding the large matrices alone by 0.0002.
    """

    def stored(name: str, value: torch.Tensor) -> torch.Tensor:
        exact = name.startswith("autoencoder.standardise.") or (name.startswith("motion.") and value.numel() < _LARGE)
        return value if exact or not value.is_floating_point() else value.to(dtype)

    states = {part: getattr(model, part).state_dict() for part in PARTS}
    changes = dict(adapted or {})
    states |= {part: own for part, (own, _) in changes.items()}
    files = {f"{part}.safetensors": {name: stored(f"{part}.{name}", value) for name, value in state.items()} for part, state in states.items()}
    files |= {ADAPTER.format(part): {name: value.to(dtype) for name, value in adapter.items()} for part, (_, adapter) in changes.items()}
    write_folder(path, {**files, "config.json": model.config.to_dict()}, {"about": about or {}})


def weights_digest(path: Path) -> str:
    """Hex digest of all weights of a model's folder, from its manifest's checksums."""
    files = read_manifest(path, verify=False)["files"]
    try:
        sums = [files[f"{part}.safetensors"] for part in PARTS] + [files.get(ADAPTER.format(part), "") for part in PARTS]
        return hashlib.sha256("".join(sums).encode()).hexdigest()
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} holds no whole model ({error} is missing in its manifest).") from error


def find_model(name: str) -> Path:
    """The folder of a shipped model's name or of a path.

    Raises:
        CheckpointError: if there is none.
    """
    return named_folder(name, SHIPPED, "model")


def named_folder(name: str, shipped: Path, what: str) -> Path:
    """The folder ``name`` inside ``shipped``, if it is complete there; else the folder of that path.

    Raises:
        CheckpointError: if there is none; ``what`` it should be is said.
    """
    if (shipped / name / "manifest.json").is_file() and Path(name).name == name:
        return shipped / name
    if Path(name).is_dir():
        return Path(name)
    import difflib

    known = complete_folders(shipped)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise CheckpointError(f"There is no {what} {name!r}: neither a folder nor shipped ({', '.join(known) or 'none shipped'}).{hint}")


def read_config(path: Path) -> ModelConfig:
    """The model configuration of a checkpoint folder."""
    return read_config_of(ModelConfig, path)


def read_config_of(kind: type[T], path: Path) -> T:
    """The configuration of a checkpoint folder that holds something of ``kind``."""
    file = path / "config.json"
    try:
        data = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read as JSON ({error}); use another copy.") from error
    try:
        return from_dict(kind, data, str(file))
    except ValueError as error:
        raise CheckpointError(f"{error} Use another copy of {path}, or the version that wrote it.") from error


def read_part(name: str, part: str) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    """A model's configuration and the float32 weights of one of its parts (adapted): ``autoencoder``, ``denoiser`` or ``motion``."""
    config, (own, adapter) = read_adapted(name, part)
    try:
        return config, changed(own, adapter)
    except ValueError as error:
        raise CheckpointError(f"{find_model(name) / ADAPTER.format(part)}: {error}; use another copy.") from error


def read_adapted(name: str, part: str) -> tuple[ModelConfig, Adapted]:
    """A model's configuration, the float32 weights of one of its parts, and those of the adapter that changes it (empty without one)."""
    path = find_model(name)
    manifest, config = read_manifest(path), read_config(path)
    if f"{part}.safetensors" not in manifest["files"]:
        raise CheckpointError(f"{path} has no {part}.safetensors; give a folder that train-model wrote, or train again.")
    unknown = sorted(manifest["files"].keys() - {"config.json", *(form.format(each) for each in PARTS for form in ("{}.safetensors", ADAPTER))})
    if unknown:  # left out, it would be another model
        raise CheckpointError(f"{path} holds {', '.join(unknown)}, which this version cannot read; use the version that wrote it.")
    oldest, what = _READS_FROM.get(part, (0, ""))
    if int(manifest["format"]) < oldest:
        raise CheckpointError(f"{path} was written by an older version, with {what} (format {manifest['format']}, {oldest} is read); train it again.")
    own, adapter = (
        {k: v.float() if v.is_floating_point() else v for k, v in read_tensors(path / file).items()} if file in manifest["files"] else {}
        for file in (f"{part}.safetensors", ADAPTER.format(part))
    )
    return config, (own, adapter)


def load_autoencoder(name: str) -> Autoencoder:
    """Loads only the autoencoder of a model, whatever its dynamics are."""
    from worldpack_model.autoencoder import Autoencoder

    config, tensors = read_part(name, "autoencoder")
    autoencoder = Autoencoder(config.autoencoder)
    load_state(autoencoder, tensors, name)
    return autoencoder.eval()


def load_model(name: str, *, device: str = "auto", precision: Precision = "auto") -> WorldPack:
    """Loads a model in eval mode; see :meth:`WorldPack.from_pretrained`."""
    from worldpack_model.world_model import WorldPack

    lookup(dict.fromkeys(get_args(Precision)), precision, "precision")
    where, path = resolve_device(device), find_model(name)
    if not (path / "manifest.json").is_file() and (path / "model" / "manifest.json").is_file():
        raise CheckpointError(f"{path} is the run folder of a training; give its model, {path / 'model'}.")
    parts = {part: read_part(name, part) for part in PARTS}  # first of all, for that tells damage before what follows from it
    model = WorldPack(parts["denoiser"][0])
    for part, (_, weights) in parts.items():
        load_state(getattr(model, part), weights, str(path / f"{part}.safetensors"))
    model.requires_grad_(False)
    model.to(where).eval()
    return model.in_bf16() if precision == "bfloat16" or (precision == "auto" and has_bf16_units(where)) else model
