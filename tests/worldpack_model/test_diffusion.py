"""The sampler against analytic answers; per-row noise."""

import pytest
import torch

from worldpack_model.config import DiffusionConfig
from worldpack_model.diffusion import add_noise, draw_noise, sample, sample_levels


@pytest.mark.parametrize("evaluations", [1, 2, 7])
def test_a_known_point_is_reached_exactly(evaluations: int) -> None:
    point = torch.tensor([[2.0, -1.0]])
    out = sample(lambda z, level: point.expand_as(z), torch.randn(1, 2), evaluations=evaluations)
    assert torch.allclose(out, point)


def test_gaussian_data_get_their_mean_and_spread() -> None:
    mean, spread = 1.5, 0.4

    def denoise(z: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        # posterior mean of x ~ N(mean, spread^2) from z = (1 - t) x + t e
        t = level[:, None]
        gain = (1 - t) * spread**2 / ((1 - t).square() * spread**2 + t.square())
        return mean + gain * (z - (1 - t) * mean)

    noise = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    out = sample(denoise, noise, evaluations=200)
    assert float(out.mean()) == pytest.approx(mean, abs=0.01)
    assert float(out.std()) == pytest.approx(spread, abs=0.02)
    assert float(sample(denoise, noise, evaluations=1).std()) == pytest.approx(0.0, abs=1e-5)  # one step: the mean


def test_noise_path_ends() -> None:
    x, e = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.equal(add_noise(x, e, torch.zeros(2)), x)
    assert torch.equal(add_noise(x, e, torch.ones(2)), e)


def test_rows_draw_from_their_own_generator() -> None:
    def noise(seeds: list[int]) -> torch.Tensor:
        return draw_noise((2, 2), [torch.Generator().manual_seed(s) for s in seeds])

    assert torch.equal(noise([5, 6, 7])[1], noise([6])[0])


def test_share_of_pure_noise() -> None:
    levels = sample_levels(20_000, DiffusionConfig(pure_noise_share=0.25), torch.Generator().manual_seed(0))
    assert float((levels == 1).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert float(levels.min()) >= 0
