"""Measures of frames against frames, and intervals of their means.

Legend: n frames of H x W pixels, C latent channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from worldpack_model.world_model import WorldPack

Floats = NDArray[np.float64]
Metric = Callable[[NDArray[np.uint8], NDArray[np.uint8]], Floats]
"""Maps two equal ``(n, H, W, 3) uint8`` arrays to ``(n,)``."""


def _checked(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> None:
    if a.shape != b.shape or a.ndim < 3 or a.shape[-1] != 3 or a.dtype != np.uint8 or b.dtype != np.uint8:
        raise ValueError(f"Frames are {a.shape} {a.dtype} and {b.shape} {b.dtype}, expected two equal (..., H, W, 3) uint8.")


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> Floats:
    """Peak signal-to-noise ratio in dB of each pair of frames ``(..., H, W, 3) uint8``; 60 dB at most, for equal frames."""
    _checked(a, b)
    mse = np.square(a.astype(np.float32) - b.astype(np.float32)).mean(axis=(-3, -2, -1))
    decibels: Floats = np.minimum(10 * np.log10(255.0**2 / np.maximum(mse, 1e-12)), 60.0).astype(np.float64)
    return decibels


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> Floats:
    """Structural similarity of each pair of frames ``(..., H, W, 3) uint8`` (Wang et al. 2004: Gaussian window of 11, sigma 1.5, valid area)."""
    _checked(a, b)
    shape = a.shape[:-3]
    x, y = (torch.from_numpy(np.ascontiguousarray(f)).reshape(-1, *f.shape[-3:]).movedim(-1, 1).double() for f in (a, b))
    if min(x.shape[-2:]) < 11:
        raise ValueError(f"Frames are {tuple(x.shape[-2:])} pixels, SSIM needs at least 11 x 11.")
    window = torch.exp(-(torch.arange(11, dtype=torch.float64) - 5).square() / (2 * 1.5**2))
    kernel = torch.outer(window, window) / window.sum() ** 2

    def blur(z: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(z, kernel.expand(3, 1, 11, 11), groups=3)

    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    score = ((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return score.mean(dim=(1, 2, 3)).numpy().reshape(shape)


def detail(frames: NDArray[np.uint8]) -> Floats:
    """Mean difference of neighbouring pixels of each frame ``(..., H, W, 3) uint8``, across and down, in grey levels: a blur has little."""
    grey = frames.astype(np.float32)
    across, down = (np.abs(np.diff(grey, axis=axis)).mean(axis=(-3, -2, -1)) for axis in (-2, -3))
    levels: Floats = (0.5 * (across + down)).astype(np.float64)
    return levels


def bootstrap(
    values: Sequence[float] | Floats, *, seed: int = 0, draws: int = 2000, middle: Literal["mean", "median"] = "mean"
) -> tuple[float, float, float]:
    """Mean (or median) of per-episode ``values`` and its 95 % interval by the bootstrap over episodes; not-a-number entries are left out."""
    data = np.asarray(values, np.float64)
    data = data[np.isfinite(data)]
    if not len(data):
        return math.nan, math.nan, math.nan
    rng = np.random.default_rng(seed)
    of = np.mean if middle == "mean" else np.median
    means = of(data[rng.integers(len(data), size=(draws, len(data)))], axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(of(data)), float(low), float(high)


def features(model: WorldPack, frames: NDArray[np.uint8]) -> Floats:
    """What the Fréchet distance compares: latents of the model's autoencoder, mean and spread of every channel in each quarter of the picture.

    Args:
        model: whose autoencoder is used; the same for all that is compared.
        frames: ``(n, H, W, 3) uint8``.

    Returns:
        ``(n, 8 C)``.
    """
    latents = torch.cat([model.encode(frames[i : i + 128]) for i in range(0, len(frames), 128)])
    mean = torch.nn.functional.adaptive_avg_pool2d(latents, 2)
    spread = (torch.nn.functional.adaptive_avg_pool2d(latents.square(), 2) - mean.square()).clamp_min(0).sqrt()
    return torch.cat([mean, spread], dim=1).flatten(1).double().cpu().numpy()


def frechet_distance(a: Floats, b: Floats) -> float:
    """Squared Fréchet distance of the normal distributions fitted to features ``a (n, d)`` and ``b (m, d)`` (Dowson and Landau 1982; FID's formula).

    Raises:
        ValueError: if there are fewer than two rows.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"A Fréchet distance needs at least two frames on each side, got {len(a)} and {len(b)}.")
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # trace of (ca cb)^1/2 by the eigenvalues of ca^1/2 cb ca^1/2, which is symmetric
    values, vectors = np.linalg.eigh(ca)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    middle = np.linalg.eigvalsh(root @ cb @ root)
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(ca) + np.trace(cb) - 2 * np.sqrt(np.clip(middle, 0, None)).sum())


def lpips_metric(device: str = "cpu") -> Metric:
    """LPIPS with AlexNet, by the ``lpips`` package.

    Raises:
        RuntimeError: if the package or its weights are not there.
    """
    try:
        import lpips

        network = lpips.LPIPS(net="alex", verbose=False).to(device).eval()
    except Exception as error:  # the package raises whatever its download of weights does
        raise RuntimeError(f"LPIPS needs `pip install lpips` (with torchvision) and its AlexNet weights: {error}. Leave --lpips out.") from error

    def metric(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> Floats:
        x, y = (torch.from_numpy(np.ascontiguousarray(f)).to(device).movedim(-1, 1).float() / 127.5 - 1 for f in (a, b))
        with torch.no_grad():
            distance: Floats = network(x, y).reshape(-1).double().cpu().numpy()
        return distance

    return metric
