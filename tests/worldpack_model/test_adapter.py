"""Changes of low rank: none at first, merged exactly, trained alone, stored beside the weights that they change, and refused elsewhere."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from worldpack_model.adapter import Adapter, changed
from worldpack_model.checkpoint import ADAPTER, PARTS, CheckpointError, load_model, read_part, save_model, sha256, weights_digest, write_folder
from worldpack_model.config import PRESETS
from worldpack_model.trainer import TrainModelConfig, train_model
from worldpack_model.world_model import WorldPack


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 12, 2), nn.Flatten(), nn.Linear(12, 16), nn.SiLU(), nn.Linear(16, 3))


def test_it_changes_nothing_at_first_and_learns_alone() -> None:
    net, x = network(), torch.randn(5, 3, 2, 2)
    before, own = net(x), {k: v.clone() for k, v in net.state_dict().items()}
    adapter = Adapter(net, 4, torch.Generator().manual_seed(0))
    assert torch.equal(net(x), before)
    assert sorted(adapter.state_dict()) == ["down.0/weight", "down.2/weight", "up.0/weight", "up.2/weight"], "three rows are cheaper as they are"
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
    net(x).square().sum().backward()
    optimizer.step()
    assert not torch.equal(net(x), before)
    learned = net(x).detach()
    adapter.detach_from_network()
    assert torch.equal(net(x), before), "the network has its own matrices again"
    assert all(torch.equal(net.state_dict()[k], v) for k, v in own.items())
    net.load_state_dict(changed(net.state_dict(), adapter.state_dict()))
    assert torch.allclose(net(x), learned, atol=1e-6)


def test_bad_adapters_are_refused() -> None:
    with pytest.raises(ValueError, match="rank is 0, expected at least 1"):
        Adapter(network(), 0, torch.Generator())
    state = Adapter(network(), 4, torch.Generator()).state_dict()
    for weight in (torch.zeros(12, 13), torch.zeros(12)):
        with pytest.raises(ValueError, match=r"the adapter's change of 0.weight does not fit"):
            changed({"0.weight": weight}, state)
    with pytest.raises(ValueError, match=r"the adapter's change of 0.weight does not fit"):
        changed(network().state_dict(), {"down.0/weight": state["down.0/weight"]})


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """An untrained model."""
    torch.manual_seed(0)
    save_model(WorldPack(PRESETS["debug"]), tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def settings(base: Path, tmp_path: Path, episodes: Path) -> TrainModelConfig:
    """Of a run that changes its denoiser for two steps and its motion model for three."""
    return TrainModelConfig(
        data=episodes, out=tmp_path / "run", preset="debug", autoencoder=str(base), init=str(base), init_motion=str(base), adapter_rank=2, steps=2,
        batch_size=4, learning_rate=0.1, rollouts_from=1.0, adversary_from=1.0, body_steps=0, motion_steps=3, motion_batch=4, motion_rate=0.1,
        picture_every=0, threads=1,
    )  # fmt: skip


def test_trained_ones_are_stored_beside_the_weights_that_they_change(base: Path, settings: TrainModelConfig) -> None:
    adapted = train_model(settings)
    for part in PARTS:
        assert sha256(base / f"{part}.safetensors") == sha256(adapted / f"{part}.safetensors"), "shipped again, it costs nothing"
    assert weights_digest(base) != weights_digest(adapted)
    for part, of_it in (("denoiser", "blocks.0.modulation.weight"), ("motion", "surroundings.look.0.weight")):
        before, after = read_part(str(base), part)[1], read_part(str(adapted), part)[1]
        moved = [name for name in before if not torch.equal(before[name], after[name])]
        assert of_it in moved
        assert all(name.endswith(".weight") for name in moved)
        loaded = getattr(load_model(str(adapted), device="cpu", precision="float32"), part).state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in after.items())


def test_an_adapted_model_stays_two_files_where_it_is_not_trained(base: Path, settings: TrainModelConfig, tmp_path: Path) -> None:
    first = train_model(replace(settings, motion_steps=0))
    assert not (first / ADAPTER.format("motion")).exists()
    second = train_model(replace(settings, out=tmp_path / "second", init=str(first), steps=0))
    third = train_model(replace(settings, out=tmp_path / "third", init=str(second), init_motion=str(second), steps=0, motion_steps=0, adapter_rank=0))
    for name in ("denoiser.safetensors", ADAPTER.format("denoiser")):
        assert sha256(first / name) == sha256(second / name) == sha256(third / name)
    for name in ("motion.safetensors", ADAPTER.format("motion")):
        assert sha256(second / name) == sha256(third / name)


def test_training_goes_on_after_a_stop(settings: TrainModelConfig, tmp_path: Path) -> None:
    whole = train_model(settings)

    def stop(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        if stage == "motion":
            raise KeyboardInterrupt

    stopped = replace(settings, out=tmp_path / "stopped", checkpoint_every=1)
    with pytest.raises(KeyboardInterrupt):
        train_model(stopped, stop)
    again = train_model(stopped)
    assert weights_digest(again) == weights_digest(whole)


def test_a_damaged_one_is_named(settings: TrainModelConfig, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    adapted = train_model(settings)
    for part in ("denoiser", "motion"):
        files = {f.name: load_file(f) for f in adapted.glob("*.safetensors")}
        file = ADAPTER.format(part)
        files[file] = {k: v[:1] if k.startswith("up.") else v for k, v in files[file].items()}
        write_folder(tmp_path / part, {**files, "config.json": PRESETS["debug"].to_dict()}, {})
        with pytest.raises(CheckpointError, match=rf"{file}: the adapter's change of .* does not fit the network; use another copy"):
            read_part(str(tmp_path / part), part)


def test_a_file_of_a_model_that_nobody_reads_is_refused(base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    files = {f.name: load_file(f) for f in base.glob("*.safetensors")}
    files["lora.safetensors"] = {"down": torch.zeros(2, 2)}
    write_folder(tmp_path / "more", {**files, "config.json": PRESETS["debug"].to_dict()}, {})
    with pytest.raises(CheckpointError, match="holds lora.safetensors, which this version cannot read"):
        load_model(str(tmp_path / "more"), device="cpu")


def test_there_must_be_something_to_adapt(base: Path, settings: TrainModelConfig) -> None:
    with pytest.raises(ValueError, match="adapter_rank is 2, with nothing to adapt; give init and steps, or init_motion and motion_steps"):
        train_model(replace(settings, init=None, motion_steps=0))
    with pytest.raises(ValueError, match="body_steps is 5, which changes what adapter_rank leaves as it is; give 0"):
        train_model(replace(settings, body_steps=5))
    with pytest.raises(ValueError, match="adapter_rank is -1, expected 0"):
        train_model(replace(settings, adapter_rank=-1))
