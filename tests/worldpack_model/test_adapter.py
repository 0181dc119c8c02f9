"""Changes of low rank: none at first, merged exactly, trained alone, stored beside the weights that they change, and refused elsewhere."""

from pathlib import Path

import pytest
import torch
from torch import nn

from worldpack_model.adapter import Adapter, changed
from worldpack_model.checkpoint import ADAPTER, CheckpointError, find_model, load_model, read_part, save_model, sha256, weights_digest, write_folder
from worldpack_model.config import PRESETS
from worldpack_model.trainer import TrainModelConfig, train_model
from worldpack_model.world_model import WorldPack


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.SiLU(), nn.Linear(16, 3))


def test_it_changes_nothing_at_first_and_learns_alone() -> None:
    net, x = network(), torch.randn(5, 12)
    before, own = net(x), {k: v.clone() for k, v in net.state_dict().items()}
    adapter = Adapter(net, 4, torch.Generator().manual_seed(0))
    assert torch.equal(net(x), before)
    assert sorted(adapter.state_dict()) == ["down.0/weight", "up.0/weight"], "a matrix of three rows is cheaper as it is"
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
    with pytest.raises(ValueError, match=r"the adapter's change of 0.weight does not fit"):
        changed({"0.weight": torch.zeros(16, 13)}, state)
    with pytest.raises(ValueError, match=r"the adapter's change of 0.weight does not fit"):
        changed(network().state_dict(), {"down.0/weight": state["down.0/weight"]})


@pytest.fixture
def trained(tmp_path: Path, episodes: Path) -> tuple[Path, Path]:
    """A model, and the same with a change of its denoiser that was trained for two steps."""
    torch.manual_seed(0)
    model = WorldPack(PRESETS["debug"])
    base, run = tmp_path / "base", tmp_path / "run"
    save_model(model, base)
    settings = TrainModelConfig(
        data=episodes, out=run, preset="debug", autoencoder=str(base), init=str(base), init_motion=str(base), adapter_rank=2, steps=2, batch_size=4,
        learning_rate=0.1, rollouts_from=1.0, adversary_from=1.0, body_steps=0, motion_steps=0, picture_every=0, threads=1,
    )  # fmt: skip
    return base, train_model(settings)


def test_a_trained_one_is_stored_beside_the_weights_that_it_changes(trained: tuple[Path, Path]) -> None:
    base, adapted = trained
    for part in ("denoiser", "autoencoder", "motion"):
        assert sha256(base / f"{part}.safetensors") == sha256(adapted / f"{part}.safetensors"), "shipped again, it costs nothing"
    assert weights_digest(base) != weights_digest(adapted)
    before, after = read_part(str(base), "denoiser")[1], read_part(str(adapted), "denoiser")[1]
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert "blocks.0.modulation.weight" in moved
    assert all(name.endswith(".weight") for name in moved)
    assert torch.equal(load_model(str(adapted), device="cpu", precision="float32").denoiser.state_dict()[moved[0]], after[moved[0]])


def test_a_damaged_one_is_named(trained: tuple[Path, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    _, adapted = trained
    files = {f.name: load_file(f) for f in adapted.glob("*.safetensors")}
    files[ADAPTER] = {k: v[:1] if k.startswith("up.") else v for k, v in files[ADAPTER].items()}
    write_folder(tmp_path / "damaged", {**files, "config.json": PRESETS["debug"].to_dict()}, {})
    with pytest.raises(CheckpointError, match=r"adapter.safetensors: the adapter's change of .* does not fit the network; use another copy"):
        read_part(str(find_model(str(tmp_path / "damaged"))), "denoiser")


def test_there_must_be_something_to_adapt(tmp_path: Path, episodes: Path) -> None:
    with pytest.raises(ValueError, match="adapter_rank is 4, but there is no denoiser to adapt; give init and steps"):
        train_model(TrainModelConfig(data=episodes, out=tmp_path, adapter_rank=4))
    with pytest.raises(ValueError, match="adapter_rank is -1, expected 0"):
        train_model(TrainModelConfig(data=episodes, out=tmp_path, adapter_rank=-1))
