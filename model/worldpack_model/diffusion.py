"""Flow matching: the noise path, the training target and the few-step sampler.

The path is ``z(tau) = (1 - tau) x + tau e`` from the clean latent ``x`` (tau 0) to unit noise ``e`` (tau 1); the network predicts ``x``. A
prediction is a velocity through ``v = (z - x) / tau``, and Euler steps follow it down (rectified flow, arXiv 2209.03003).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from worldpack_model.config import DiffusionConfig


def sample_levels(count: int, config: DiffusionConfig, generator: torch.Generator, device: torch.device | str = "cpu") -> torch.Tensor:
    """Noise levels ``(count,)`` of training targets: the first ``pure_noise_share`` of them (rounded) 1, the others uniform in [0, 1].

    Always as many, so that compiled code sees one shape.
    """
    level = torch.rand(count, generator=generator, device=device)
    level[: round(config.pure_noise_share * count)] = 1.0
    return level


def add_noise(clean: torch.Tensor, noise: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """``z(level)`` of ``clean`` and ``noise (B, ...)`` at ``level (B,)``."""
    tau = level.reshape(-1, *[1] * (clean.ndim - 1))
    return (1 - tau) * clean + tau * noise


def draw_noise(shape: tuple[int, ...], generators: Sequence[torch.Generator], device: torch.device | str = "cpu") -> torch.Tensor:
    """Unit noise ``(n, *shape)``, row i from ``generators[i]`` alone, so that a row does not depend on the batch it is in."""
    return torch.stack([torch.randn(shape, generator=g, device=g.device) for g in generators]).to(device)


def sample(
    denoise: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], noise: torch.Tensor, *, evaluations: int, first: torch.Tensor | None = None
) -> torch.Tensor:
    """Follows the flow from ``noise`` to a clean sample.

    Args:
        denoise: maps ``(z (B, ...), level (B,))`` to the predicted clean sample.
        noise: ``(B, ...)`` unit noise.
        evaluations: calls of ``denoise``, at least 1; the levels are evenly spaced from 1 down.
        first: what the first of them gives, where that is known already.
    """
    if evaluations < 1:
        raise ValueError(f"evaluations is {evaluations}, expected at least 1.")
    z = noise
    for i in range(evaluations):
        tau, after = 1 - i / evaluations, 1 - (i + 1) / evaluations
        clean = first if first is not None and i == 0 else denoise(z, z.new_full((z.shape[0],), tau))
        z = clean + (after / tau) * (z - clean)  # = z + (after - tau) v
    return z
