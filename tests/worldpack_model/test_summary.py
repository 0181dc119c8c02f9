"""Sizes are those of the real model."""

import numpy as np
import pytest
import torch

from worldpack_model.checkpoint import CheckpointError
from worldpack_model.config import PRESETS
from worldpack_model.geometry import ACTION_DIM, BOX
from worldpack_model.motion import Blocks, Body
from worldpack_model.packing import Context
from worldpack_model.retrieval import Footprints
from worldpack_model.summary import summarise
from worldpack_model.world_model import Batch, WorldPack


@pytest.mark.parametrize("name", ["debug", "voxel-64-small"])
def test_counts_are_those_of_the_built_model(name: str) -> None:
    summary, model = summarise(name), WorldPack(PRESETS[name])
    assert sum(summary.parameters.values()) == sum(p.numel() for p in model.parameters())
    assert summary.context_tokens == len(model.denoiser.pack.frame_of_token) == PRESETS[name].packing.tokens(8, 8) == 256
    assert summary.target_tokens == len(model.denoiser.position)


def test_shipped_models_and_mistakes() -> None:
    assert summarise("voxel-64-recent").frame_equivalents == 4.0
    with pytest.raises(CheckpointError, match="voxel-46"):
        summarise("voxel-46")


def test_paper_scale() -> None:
    base, large = summarise("base"), summarise("large")
    assert (base.target_tokens, base.context_tokens) == (196, 844)
    assert (large.target_tokens, large.context_tokens) == (256, 1024)
    assert 1.5e8 < base.parameters["denoiser"] < 2.5e8
    assert 5e8 < large.parameters["denoiser"] < 8e8


def batch(model: WorldPack, generator: torch.Generator) -> Batch:
    """One target with a full context of noise."""
    frames, shape = model.config.packing.frames, model.latent_shape
    poses = torch.zeros((1, frames, 5), dtype=torch.float64)
    poses[..., 2] = -torch.arange(1.0, frames + 1)
    context = Context(
        torch.randn((1, frames, *shape), generator=generator),
        poses,
        torch.arange(1, frames + 1)[None],
        torch.zeros((1, frames), dtype=torch.bool),
        torch.ones((1, frames), dtype=torch.bool),
    )
    return Batch(
        context=context,
        query=torch.zeros((1, 5), dtype=torch.float64),
        body=Body(poses[:, 0], torch.zeros((1, ACTION_DIM)), torch.zeros((1, 3), dtype=torch.float64), torch.zeros((1, ACTION_DIM))),
        footprints=Footprints(poses[..., :3], context.imagined, context.used),
        blocks=Blocks(torch.zeros((1, *BOX), dtype=torch.uint8), torch.zeros((1, 3), dtype=torch.int64)),
        target=torch.randn((1, *shape), generator=generator),
        known=torch.ones((1, *shape[1:])),
        frame=torch.zeros(1, dtype=torch.int64),
    )


@pytest.mark.parametrize(
    "name",
    [pytest.param("middle", marks=pytest.mark.slow), pytest.param("base", marks=pytest.mark.slow), pytest.param("large", marks=pytest.mark.slow)],
)
def test_presets_train_and_step(name: str) -> None:
    """One training step changes every weight of the denoiser it should, one env step gives a frame."""
    torch.manual_seed(0)
    model = WorldPack(PRESETS[name])
    optimizer = torch.optim.SGD(model.denoiser.parameters(), lr=1e-2)  # SGD: its step holds no second copy of the weights
    loss = model.loss(batch(model, torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)).total
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.denoiser.parameters())
    before = model.denoiser.out.weight.detach().clone()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    assert not torch.equal(before, model.denoiser.out.weight)

    model.eval()
    memory = model.new_memory(1)
    height, width = model.config.frame_size
    frame = np.random.default_rng(0).integers(0, 255, (1, 1, height, width, 3), dtype=np.uint8)
    model.remember(memory, [0], frame, np.zeros((1, 1, 5)))
    action = np.zeros((1, ACTION_DIM), np.float32)
    action[:, 0] = 1  # forward
    seen = model.predict(memory, [0], action, [torch.Generator().manual_seed(0)], evaluations=1)
    assert seen.frames.shape == (1, height, width, 3)
    assert seen.finite.all()
