"""Training: it learns, it continues exactly, it refuses what does not belong together."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import worldpack_model.trainer as trainer
from worldpack_model.checkpoint import CheckpointError, load_model
from worldpack_model.config import PRESETS
from worldpack_model.dataset import LatentDataset
from worldpack_model.episodes import EpisodeError, EpisodeIndex
from worldpack_model.trainer import TrainModelConfig, step_generator, train_model
from worldpack_model.world_model import WorldPack


def small(data: Path, out: Path, **changes: object) -> TrainModelConfig:
    settings: dict[str, object] = {
        "preset": "debug", "autoencoder_steps": 6, "autoencoder_batch": 4, "steps": 6, "batch_size": 4, "checkpoint_every": 3,
        "picture_every": 0, "device": "cpu",
    }  # fmt: skip
    return TrainModelConfig(data=data, out=out, **{**settings, **changes})  # type: ignore[arg-type]


class Stop(Exception):
    """Stands for a killed process."""


def test_resume_equals_uninterrupted(episodes: Path, tmp_path: Path) -> None:
    whole = train_model(small(episodes, tmp_path / "whole", checkpoint_every=1))
    for stage, at in (("autoencoder", 4), ("dynamics", 2), ("dynamics", 5)):
        original = trainer._Stage.save

        def save(self: object, stage: str = stage, at: int = at, original=original) -> None:
            original(self)
            if self.name == stage and self.step == at:  # type: ignore[attr-defined]
                raise Stop

        trainer._Stage.save = save  # type: ignore[method-assign]
        try:
            with pytest.raises(Stop):
                train_model(small(episodes, tmp_path / "parts", checkpoint_every=1))
        finally:
            trainer._Stage.save = original  # type: ignore[method-assign]
    parts = train_model(small(episodes, tmp_path / "parts", checkpoint_every=1))
    one, two = load_file(whole / "model.safetensors"), load_file(parts / "model.safetensors")
    for name in one:
        assert torch.equal(one[name], two[name]), name
    lines = [json.loads(line) for line in (tmp_path / "parts" / "curve.jsonl").read_text().splitlines()]
    assert [(x["stage"], x["step"]) for x in lines] == [("autoencoder", 6), ("dynamics", 6)]


def test_survives_sigkill(episodes: Path, tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from tests.worldpack_model.test_trainer import small
from worldpack_model.trainer import train_model
train_model(small(Path({str(episodes)!r}), Path({str(tmp_path / "run")!r}), checkpoint_every=1, steps=400))
"""
    child = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    manifest = tmp_path / "run" / "dynamics-state" / "manifest.json"
    for _ in range(600):
        if manifest.exists() or child.poll() is not None:
            break
        time.sleep(0.1)
    child.send_signal(signal.SIGKILL)
    child.wait()
    state = tmp_path / "run" / "dynamics-state"
    assert state.exists() or list((tmp_path / "run").glob(".dynamics-state*")), "it was killed while training"
    # going on from the killed state must work; a short continuation is enough
    config = small(episodes, tmp_path / "run", checkpoint_every=1, steps=400)
    seen: list[int] = []

    def progress(stage: str, step: int, total: int, numbers: dict[str, float]) -> None:
        if stage == "dynamics":
            seen.append(step)
            raise Stop

    with pytest.raises(Stop):
        train_model(config, progress)
    assert seen
    assert seen[0] > 0


def test_it_learns(episodes: Path, tmp_path: Path) -> None:
    logged: dict[str, list[float]] = {"autoencoder": [], "dynamics": []}

    def progress(stage: str, step: int, total: int, numbers: dict[str, float]) -> None:
        if stage in logged:
            logged[stage].append(numbers["loss"])

    train_model(small(episodes, tmp_path / "run", autoencoder_steps=100, steps=150, batch_size=8, autoencoder_batch=8), progress)
    assert logged["autoencoder"][-1] < 0.6 * logged["autoencoder"][0]
    assert logged["dynamics"][-1] < 0.8 * logged["dynamics"][0]


def test_a_run_folder_belongs_to_one_configuration(episodes: Path, tmp_path: Path) -> None:
    train_model(small(episodes, tmp_path / "run", steps=0))
    with pytest.raises(CheckpointError, match="other settings \\(learning_rate\\)"):
        train_model(small(episodes, tmp_path / "run", steps=0, learning_rate=1.0))
    load_model(str(tmp_path / "run" / "model"), device="cpu")


def test_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(EpisodeError, match="worldpack record"):
        train_model(small(tmp_path / "nothing", tmp_path / "run"))


def test_autoencoder_and_latents_of_another_run(episodes: Path, tmp_path: Path) -> None:
    first = train_model(small(episodes, tmp_path / "one"))
    second = train_model(small(episodes, tmp_path / "two", variant="recent", autoencoder=str(first), latents=tmp_path / "one" / "latents"))
    a, b = load_model(str(first), device="cpu"), load_model(str(second), device="cpu")
    for name, value in a.autoencoder.state_dict().items():
        assert torch.equal(value, b.autoencoder.state_dict()[name])
    assert b.config.packing.retrieved == 0


def test_step_generators_differ() -> None:
    draws = {float(torch.rand(1, generator=step_generator(*key))) for key in [(0, 1, 0), (0, 1, 1), (0, 2, 0), (1, 1, 0)]}
    assert len(draws) == 4


def test_batches_obey_time(episodes: Path) -> None:
    """Every context frame is older than its target, recent frames are the newest, actions lead to the target."""
    torch.manual_seed(0)
    model = WorldPack(PRESETS["debug"]).eval()
    index = EpisodeIndex.open(episodes)
    dataset = LatentDataset.encode(index, model.encode)
    assert len(dataset) == index.frames
    batch = dataset.batch(model.config, 64, torch.Generator().manual_seed(0))
    ages, used = batch.context.ages, batch.context.used
    assert int(ages[used].min()) == 1
    assert (ages[:, 0] == 1).all(), "the first recent frame is the one before the target"
    position = {tuple(p): i for i, p in enumerate(dataset.poses.numpy().round(6).tolist())}
    assert position
    turned = batch.query[:, 3] - batch.previous[:, 3]
    assert np.allclose(((turned.numpy() + 180) % 360) - 180, batch.actions[:, 8].numpy(), atol=1e-3)
    real = ~batch.context.imagined & used
    exact = (batch.context.latents[:, :, 0, 0, 0] * real).abs().sum() > 0
    assert bool(exact)
