"""Checkpoints: round trip, strictness, hostile and damaged files, kills."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from worldpack_model.checkpoint import CheckpointError, load_model, read_manifest, recovered, save_model, sha256, shipped_models, write_folder
from worldpack_model.world_model import WorldPack


@pytest.fixture
def saved(model: WorldPack, tmp_path: Path) -> Path:
    save_model(model, tmp_path / "m", {"note": "test"}, dtype=torch.float32)
    return tmp_path / "m"


def refresh(folder: Path) -> None:
    """Makes the manifest agree with changed files, as an attacker would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {name: sha256(folder / name) for name in manifest["files"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_round_trip(model: WorldPack, saved: Path) -> None:
    again = load_model(str(saved), device="cpu", precision="float32")
    assert again.config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert read_manifest(saved)["about"] == {"note": "test"}


def test_bf16_is_close(model: WorldPack, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m")
    again = load_model(str(tmp_path / "m"), device="cpu").state_dict()
    for name, value in model.state_dict().items():
        assert torch.allclose(value.float(), again[name].float(), rtol=1e-2, atol=1e-6), name


def test_what_poses_hang_on_is_stored_exactly(model: WorldPack, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m")
    motion, autoencoder = (load_file(tmp_path / "m" / f"{part}.safetensors") for part in ("motion", "autoencoder"))
    assert {v.dtype for v in motion.values() if v.numel() < 10_000} == {torch.float32}
    assert {v.dtype for v in motion.values() if v.numel() >= 10_000} == {torch.bfloat16}
    assert autoencoder["standardise.running_mean"].dtype == torch.float32


def test_unknown_name_suggests() -> None:
    with pytest.raises(CheckpointError, match="no model 'voxel64'"):
        load_model("voxel64")


def test_shipped_models_load() -> None:
    if not shipped_models():
        pytest.skip("this tree ships no weights yet")
    for name in shipped_models():
        assert load_model(name, device="cpu").config.frame_size == (64, 64)


def test_a_flipped_byte_is_found(saved: Path) -> None:
    data = bytearray((saved / "denoiser.safetensors").read_bytes())
    data[-5] ^= 1
    (saved / "denoiser.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="does not match its checksum"):
        load_model(str(saved))


def test_a_pickle_is_never_loaded(saved: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "pwned"),))

    (saved / "denoiser.safetensors").write_bytes(pickle.dumps(Evil()))
    refresh(saved)
    with pytest.raises(CheckpointError, match="safetensors"):
        load_model(str(saved))
    assert not (tmp_path / "pwned").exists()


def test_missing_extra_wrong_and_nan_tensors(saved: Path) -> None:
    file = saved / "denoiser.safetensors"
    original = load_file(file)
    name = "out.bias"
    for change, message in [
        ({name: None}, "missing"),
        ({"extra": torch.zeros(1)}, "unknown"),
        ({name: torch.zeros(3)}, "shape"),
        ({name: torch.full_like(original[name], torch.nan)}, "not finite"),
    ]:
        save_file({k: v for k, v in {**original, **change}.items() if v is not None}, file)
        refresh(saved)
        with pytest.raises(CheckpointError, match=message):
            load_model(str(saved))


def test_config_with_unknown_key(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "tranformer": {}}))
    refresh(saved)
    with pytest.raises(ValueError, match="Did you mean 'transformer'"):
        load_model(str(saved))


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "not a manifest"),
        ('{"format": 99, "files": {}}', "upgrade"),
        ('{"format": 1, "files": {"../x": "0"}}', "outside its folder"),
        ('{"format": 1, "files": {"other.bin": "0"}}', "missing"),
        ('{"format": 2, "files": {}}', "no autoencoder.safetensors"),
    ],
)
def test_bad_manifests(saved: Path, manifest: str, message: str) -> None:
    (saved / "manifest.json").write_text(manifest)
    with pytest.raises(CheckpointError, match=message):
        load_model(str(saved))


def test_no_manifest(saved: Path) -> None:
    (saved / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="no manifest.json"):
        load_model(str(saved))


def test_a_failed_write_leaves_the_old_checkpoint(saved: Path, model: WorldPack) -> None:
    before = sha256(saved / "denoiser.safetensors")
    with pytest.raises(TypeError):
        write_folder(saved, {"config.json": {"bad": object()}}, {})
    assert sha256(saved / "denoiser.safetensors") == before
    load_model(str(saved))


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, renames = tmp_path / "state", []
    write_folder(target, {"config.json": {"k": 1}}, {"k": 1})
    assert recovered(target) and not recovered(tmp_path / "other")

    def killed(source: object, place: object) -> None:
        renames.append(source)
        if len(renames) == 2:
            raise KeyboardInterrupt
        os.rename(str(source), str(place))

    with monkeypatch.context() as patched:
        patched.setattr("worldpack_model.checkpoint.os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_folder(target, {"config.json": {"k": 2}}, {"k": 2})
    assert not target.exists()
    new = next(tmp_path.glob(".state.*.new"))
    assert recovered(target) and read_manifest(target)["k"] == 2 and not new.exists()
    target.rename(tmp_path / ".state.1.new")
    (tmp_path / ".state.1.new" / "manifest.json").unlink()  # half written: the older one counts
    assert recovered(target) and read_manifest(target)["k"] == 1
    write_folder(target, {"config.json": {"k": 3}}, {"k": 3})
    assert [path.name for path in tmp_path.iterdir()] == ["state"], "nothing is left beside it"


@pytest.mark.parametrize(
    "damage",
    [
        lambda saved: (saved / "config.json").write_bytes(b"\xff\xfe"),
        lambda saved: (saved / "config.json").write_text('{"config": {}}'),
        lambda saved: (saved / "config.json").unlink(),
        lambda saved: (saved / "manifest.json").write_text("[" * 100_000),
        lambda saved: saved.rename(saved.with_name("model")),
    ],
)
def test_damage_is_told_as_damage(saved: Path, damage: Callable[[Path], object]) -> None:
    damage(saved)
    with pytest.raises(CheckpointError):
        load_model(str(saved if saved.exists() else saved.parent))


def test_killed_writers_leave_a_whole_checkpoint(tmp_path: Path) -> None:
    """A child saves in a loop and is killed at arbitrary moments; what lies there is always complete."""
    code = """
import sys, torch
from pathlib import Path
from worldpack_model.checkpoint import write_folder
k = 0
while True:
    k += 1
    write_folder(Path(sys.argv[1]), {"state.safetensors": {"k": torch.full((200_000,), k)}}, {"k": k})
    print(k, flush=True)
"""
    target, last = tmp_path / "state", 0
    for round_ in range(4):
        child = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.01 + 0.013 * round_)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        folders = [p for p in tmp_path.iterdir() if (p / "manifest.json").exists()]
        assert folders
        if target.exists():
            manifest = read_manifest(target)
            assert set(load_file(target / "state.safetensors")["k"].tolist()) == {manifest["k"]}
            last = manifest["k"]
    assert last > 0


@pytest.mark.parametrize(("version", "what"), [(2, "rotary pairs"), (3, "motion model")])
def test_weights_of_older_kinds_are_refused_with_the_reason(model: WorldPack, tmp_path: Path, version: int, what: str) -> None:
    save_model(model, tmp_path / "old")
    manifest = json.loads((tmp_path / "old" / "manifest.json").read_text())
    (tmp_path / "old" / "manifest.json").write_text(json.dumps({**manifest, "format": version}))
    with pytest.raises(CheckpointError, match=f"older version.*{what}.*train it again"):
        load_model(str(tmp_path / "old"))


def test_bfloat16_imagines_nearly_the_same(model: WorldPack, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m")
    frames = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64, 3), dtype=np.uint8)
    seen = []
    for precision in ("float32", "bfloat16"):
        loaded = load_model(str(tmp_path / "m"), device="cpu", precision=precision)
        assert loaded.bf16 is (precision == "bfloat16")
        memory = loaded.new_memory(1)
        loaded.remember(memory, [0], frames, np.zeros((1, 3, 5)))
        seen.append(loaded.predict(memory, [0], np.zeros((1, 9), np.float32), [torch.Generator().manual_seed(0)]).frames.astype(int))
    assert 0 < np.abs(seen[0] - seen[1]).max() <= 8
    with pytest.raises(ValueError, match="no precision named 'float16'"):
        load_model(str(tmp_path / "m"), precision="float16")
