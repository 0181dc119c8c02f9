"""Packing: exact budgets, order, initialisation, padding."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldpack_model.config import VARIANTS, Level, PackingConfig
from worldpack_model.geometry import camera_rays
from worldpack_model.packing import TrajectoryPacking

levels = st.lists(st.builds(Level, st.sampled_from([1, 2, 4, 8]), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=3)


@settings(max_examples=30, deadline=None)
@given(levels, st.integers(3, 9), st.integers(3, 9))
def test_token_budget_is_exact(parts: list[Level], rows: int, columns: int) -> None:
    config = PackingConfig(tuple(parts))
    if config.frames == 0:
        return
    pack = TrajectoryPacking(config, 3, (rows, columns), 16, 70.0)
    tokens = pack(torch.randn(2, config.frames, 3, rows, columns))
    assert tokens.shape == (2, config.tokens(rows, columns), 16)
    assert len(pack.rays) == len(pack.frame_of_token) == tokens.shape[1]


def test_a_token_depends_on_its_own_frame_alone() -> None:
    config = VARIANTS["worldpack"]
    pack = TrajectoryPacking(config, 3, (8, 8), 16, 70.0)
    latents = torch.randn(1, 22, 3, 8, 8)
    for frame in (0, 4, 21):
        other = latents.clone()
        other[:, frame] += 1
        changed = (pack(latents) != pack(other)).any(-1)[0]
        assert torch.equal(changed, pack.frame_of_token == frame)


def test_packed_tokens_start_as_the_mean_of_the_fine_ones() -> None:
    pack = TrajectoryPacking(PackingConfig((Level(1, 1, 0), Level(4, 1, 0))), 3, (8, 8), 16, 70.0)
    latent = torch.randn(3, 8, 8)
    tokens = pack(torch.stack([latent, latent])[None])[0]
    fine = tokens[:64].reshape(8, 8, 16)
    assert torch.allclose(tokens[64], fine[:4, :4].mean((0, 1)), atol=1e-5)
    assert torch.allclose(tokens[67], fine[4:, 4:].mean((0, 1)), atol=1e-5)


def test_padding_repeats_the_edge() -> None:
    pack = TrajectoryPacking(PackingConfig((Level(2, 1, 0),)), 1, (3, 3), 4, 70.0)
    latent = torch.arange(9.0).reshape(1, 1, 1, 3, 3)
    padded = torch.nn.functional.pad(latent[0], (0, 1, 0, 1), mode="replicate")
    whole = TrajectoryPacking(PackingConfig((Level(2, 1, 0),)), 1, (4, 4), 4, 70.0)
    whole.load_state_dict(pack.state_dict())
    assert torch.allclose(pack(latent), whole(padded[None]))


def test_wrong_number_of_frames() -> None:
    pack = TrajectoryPacking(VARIANTS["recent"], 3, (8, 8), 16, 70.0)
    with pytest.raises(ValueError, match="3 frames, the packing expects 4"):
        pack(torch.zeros(1, 3, 3, 8, 8))


def test_a_tokens_ray_goes_through_the_middle_of_its_part_of_the_picture() -> None:
    fov, half = 70.0, np.tan(np.radians(35.0))
    padded = TrajectoryPacking(PackingConfig((Level(8, 1, 0),)), 2, (28, 28), 6, fov)  # 4 x 4 tokens, the last ones of 4 cells each way
    rays = padded.rays.reshape(4, 4, 3).numpy()
    middles = [4 / 28, 12 / 28, 20 / 28, 26 / 28]
    assert rays[..., 0] / rays[..., 2] == pytest.approx(np.tile([half * (2 * m - 1) for m in middles], (4, 1)), abs=1e-6)
    assert rays[..., 1] / rays[..., 2] == pytest.approx(np.tile([half * (1 - 2 * m) for m in middles], (4, 1)).T, abs=1e-6)
    whole = TrajectoryPacking(PackingConfig((Level(4, 1, 0),)), 2, (28, 28), 6, fov)
    assert whole.rays.numpy() == pytest.approx(camera_rays(7, 7, fov).reshape(-1, 3), abs=1e-6)
