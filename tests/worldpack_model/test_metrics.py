"""Metrics against known numbers."""

import math
import sys
import types

import numpy as np
import pytest
import torch

from worldpack_model.metrics import bootstrap, detail, features, frechet_distance, lpips_metric, psnr, ssim
from worldpack_model.world_model import WorldPack


def test_psnr_known_values() -> None:
    a = np.zeros((2, 16, 16, 3), np.uint8)
    b = a.copy()
    b[1] = 10
    assert psnr(a, b) == pytest.approx([60.0, 10 * math.log10(255**2 / 100)])


def test_ssim_known_values() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    b = a.copy()
    b[1] = 255 - b[1]
    same, inverted = ssim(a, b)
    assert same == pytest.approx(1.0)
    assert inverted < 0
    flat = np.full((1, 32, 32, 3), 100, np.uint8)  # constant pictures: only the luminance term is left
    c1 = (0.01 * 255) ** 2
    assert ssim(flat, flat + 20) == pytest.approx([(2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)], abs=1e-6)


def test_detail_counts_edges_both_ways() -> None:
    flat = np.full((8, 8, 3), 100, np.uint8)
    stripes = flat.copy()
    stripes[:, ::2] = 110
    assert detail(np.stack([flat, stripes, stripes.transpose(1, 0, 2)])) == pytest.approx([0, 5, 5])


def test_metrics_refuse_other_shapes() -> None:
    with pytest.raises(ValueError, match="expected two equal"):
        psnr(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.float32))


def test_bootstrap_interval() -> None:
    mean, low, high = bootstrap([1.0, 2.0, 3.0, math.nan])
    assert mean == 2.0
    assert 1.0 <= low < 2.0 < high <= 3.0
    assert all(math.isnan(v) for v in bootstrap([]))
    assert bootstrap([1.0, 2.0, 90.0], middle="median")[0] == 2.0


def test_frechet_distance_of_known_normals() -> None:
    """For independent axes it is the squared distance of the means plus that of the spreads."""
    rng = np.random.default_rng(0)
    spread, other, shift = np.array([1.0, 2.0, 0.5]), np.array([2.0, 2.0, 1.5]), np.array([3.0, 0.0, 0.0])
    a = rng.normal(size=(200_000, 3)) * spread
    b = rng.normal(size=(200_000, 3)) * other + shift
    assert frechet_distance(a, b) == pytest.approx(9 + 1 + 0 + 1, rel=0.02)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    turned = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert frechet_distance(a @ turned, b @ turned) == pytest.approx(frechet_distance(a, b), rel=1e-6)
    with pytest.raises(ValueError, match="at least two"):
        frechet_distance(a[:1], b)


def test_features_tell_pictures_apart(model: WorldPack) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    found = features(model, frames)
    assert found.shape == (6, 8 * model.config.autoencoder.latent_channels)
    assert np.allclose(found[2], features(model, frames[2:3])[0], atol=1e-5)
    assert not np.allclose(found[0], found[1], atol=1e-3)


def test_lpips_is_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames reach the package as it wants them; without it the message says what to install."""

    class Fake(torch.nn.Module):
        def __init__(self, net: str, verbose: bool) -> None:
            super().__init__()
            assert net == "alex"

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            assert x.shape == (2, 3, 16, 16)
            assert x.min() >= -1
            assert x.max() <= 1
            return (x - y).abs().mean((1, 2, 3), keepdim=True)

    module = types.ModuleType("lpips")
    module.LPIPS = Fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", module)
    a = np.zeros((2, 16, 16, 3), np.uint8)
    assert lpips_metric()(a, a + 255) == pytest.approx([2.0, 2.0])
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(RuntimeError, match="pip install lpips"):
        lpips_metric()
