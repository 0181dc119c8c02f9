"""Trajectory packing: the frames of a context become a fixed number of tokens (paper section 4.3).

Every compression level cuts its latents into squares of ``kernel`` cells and projects each with its own matrix; a level with twice the kernel
has a quarter of the tokens. Legend: B batch, F context frames, C latent channels, D token width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from worldpack_model.config import PackingConfig
from worldpack_model.geometry import rays_through


class Context(NamedTuple):
    """What is remembered, as tensors, in the packing's order."""

    latents: torch.Tensor
    """``(B, F, C, h, w)``."""
    poses: torch.Tensor
    """``(B, F, 5)``."""
    ages: torch.Tensor
    """``(B, F)`` env steps before the target, at least 1."""
    imagined: torch.Tensor
    """``(B, F) bool``."""
    used: torch.Tensor
    """``(B, F) bool``; unused frames are masked out of the attention."""


class TrajectoryPacking(nn.Module):
    """Projects context latents to tokens.

    The projection of a kernel ``k`` starts as the tiled projection of the finest level divided by ``k^2`` over the finest one's area, FramePack's
    rule: before training, a packed token is the mean of the tokens it replaces. Latents whose sides are no multiple of the kernel are padded by
    replication.
    """

    def __init__(self, config: PackingConfig, channels: int, size: tuple[int, int], width: int, vertical_fov: float) -> None:
        super().__init__()
        self.config, self.size = config, size
        self.projections = nn.ModuleList(nn.Linear(channels * lv.kernel**2, width) for lv in config.levels)
        base = nn.Linear(channels, width)
        aspect = size[1] / size[0]
        rays, frame_of_token, start = [], [], 0
        for level, projection in zip(config.levels, self.projections, strict=True):
            assert isinstance(projection, nn.Linear)
            k = level.kernel
            with torch.no_grad():
                tiled = base.weight[:, :, None].expand(-1, -1, k * k) / k**2
                projection.weight.copy_(tiled.reshape(width, -1))
                projection.bias.copy_(base.bias)
            level_rays = torch.from_numpy(rays_through(_middles(size[0], k), _middles(size[1], k), vertical_fov, aspect)).float().reshape(-1, 3)
            frames = level.recent + level.retrieved
            rays.append(level_rays.repeat(frames, 1))
            frame_of_token.append(torch.arange(start, start + frames).repeat_interleave(len(level_rays)))
            start += frames
        self.register_buffer("rays", torch.cat(rays), persistent=False)
        self.register_buffer("frame_of_token", torch.cat(frame_of_token), persistent=False)
        self.rays: torch.Tensor
        """``(S, 3)`` camera ray of the middle of every token's area."""
        self.frame_of_token: torch.Tensor
        """``(S,)`` which of the context's frames a token belongs to."""

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Packs ``latents (B, F, C, h, w)``, ordered level by level, into ``(B, S, D)`` tokens."""
        batch, frames = latents.shape[:2]
        if frames != self.config.frames:
            raise ValueError(f"The context has {frames} frames, the packing expects {self.config.frames}.")
        tokens, start = [], 0
        for level, projection in zip(self.config.levels, self.projections, strict=True):
            assert isinstance(projection, nn.Linear)
            count, k = level.recent + level.retrieved, level.kernel
            if count == 0:
                continue
            part = latents[:, start : start + count].flatten(0, 1)  # (B n, C, h, w)
            down, right = -part.shape[2] % k, -part.shape[3] % k
            if down or right:
                part = F.pad(part, (0, right, 0, down), mode="replicate")
            squares = F.pixel_unshuffle(part, k) if k > 1 else part  # (B n, C k k, h/k, w/k)
            rows = squares.flatten(2).transpose(1, 2).reshape(-1, projection.in_features)  # one product, not one for each frame
            # the bias by itself: with one level its gradient equals another bias's, which torch 2.13's compiler cannot write twice
            projected = rows @ projection.weight.mT + projection.bias
            tokens.append(projected.reshape(batch, -1, projection.out_features))
            start += count
        return torch.cat(tokens, dim=1)


def _middles(cells: int, kernel: int) -> NDArray[np.float64]:
    """Where along a side of the picture, 0 to 1, the middles of tokens of ``kernel`` cells are; what is beyond its ``cells`` is padding."""
    first = np.arange(0, cells, kernel)
    middles: NDArray[np.float64] = (first + np.minimum(first + kernel, cells)) / (2 * cells)
    return middles
