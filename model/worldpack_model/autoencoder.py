"""Frame <-> latent: a small convolutional autoencoder whose work is done at the latent's size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from worldpack_model.config import AutoencoderConfig


class _ResBlock(nn.Module):
    """Two 3x3 convolutions with group norms around a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        groups = max(g for g in (8, 4, 2, 1) if width % g == 0)
        self.norm1, self.norm2 = nn.GroupNorm(groups, width), nn.GroupNorm(groups, width)
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        out: torch.Tensor = x + self.conv2(F.silu(self.norm2(h)))
        return out


class Autoencoder(nn.Module):
    """Deterministic encoder and decoder with unit-variance latents.

    Downscaling is pixel-unshuffle by 4 and by 2, upscaling pixel-shuffle, so that nearly all arithmetic runs at 1/8 of the frame's side
    (``reference/performance.md`` 3.5). The latent is standardised by a batch norm without affine part: its running statistics make every
    channel zero-mean and unit-variance over the training frames, which the diffusion's noise levels count on.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        wide, narrow, middle = config.width, config.width * 4 // 5, config.width * 2 // 5
        channels = config.latent_channels
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),  # 48 x H/4 x W/4
            nn.Conv2d(48, middle, 3, padding=1),
            _ResBlock(middle),
            nn.PixelUnshuffle(2),  # 4 middle x H/8 x W/8
            nn.Conv2d(4 * middle, narrow, 1),
            *(_ResBlock(narrow) for _ in range(config.blocks)),
            nn.Conv2d(narrow, channels, 1),
        )
        self.standardise = nn.BatchNorm2d(channels, affine=False, momentum=0.02)
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, wide, 3, padding=1),
            *(_ResBlock(wide) for _ in range(config.blocks)),
            nn.Conv2d(wide, 4 * middle, 1),
            nn.PixelShuffle(2),  # middle x H/4 x W/4
            _ResBlock(middle),
            nn.Conv2d(middle, 48, 3, padding=1),
            nn.PixelShuffle(4),  # 3 x H x W
        )

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """Encodes ``frames (B, 3, H, W)`` float in [-1, 1] to ``(B, C, H/8, W/8)`` unit-variance latents."""
        z: torch.Tensor = self.standardise(self.encoder(frames))
        return z

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decodes ``latents (B, C, H/8, W/8)`` to ``(B, 3, H, W)`` float, about [-1, 1]."""
        frames: torch.Tensor = self.decoder(latents)
        return frames

    def loss(self, frames: torch.Tensor, generator: torch.Generator, latent_noise: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
        """Reconstruction loss on ``frames (B, 3, H, W)`` float in [-1, 1].

        Noise of a random strength up to ``latent_noise`` is put on the latent, so that the decoder forgives the small errors of predicted
        latents and neighbouring latents mean similar pictures.

        Returns:
            The loss (mean square plus a little absolute error) and the mean square error, both scalars.
        """
        z = self.encode(frames)
        strength = torch.rand((z.shape[0], 1, 1, 1), generator=generator, device=z.device) * latent_noise
        noise = torch.randn(z.shape, generator=generator, device=z.device)
        error = self.decode(z + strength * noise) - frames
        mse = error.square().mean()
        return mse + 0.05 * error.abs().mean(), mse.detach()


def frames_to_tensor(frames: torch.Tensor) -> torch.Tensor:
    """Turns ``(..., H, W, 3) uint8`` into ``(..., 3, H, W)`` float in [-1, 1]."""
    return frames.movedim(-1, -3).float().div_(127.5).sub_(1.0)


def tensor_to_frames(frames: torch.Tensor) -> torch.Tensor:
    """Turns ``(..., 3, H, W)`` float into ``(..., H, W, 3) uint8``, clipping to [-1, 1]."""
    return frames.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8).movedim(-3, -1).contiguous()
