"""What a model is made of: parameters by part, and the exact token budget of its context, beside what the paper says of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from worldpack_model.checkpoint import find_model, read_config
from worldpack_model.config import PRESETS, ModelConfig
from worldpack_model.world_model import WorldPack

PAPER = (
    ("paper, v1", "19 frames in 2.84 frames' worth of tokens; 1 / 2 / 16 frames at 1 / 4 / 16 times, the oldest eight retrieved"),
    ("paper, v3", "22 frames in about 4 frames' worth of tokens; 2 / 4 / 16 frames at 1 / 4 / 16 times, levels by geometric selection"),
    ("paper, size", "not printed; the LoopNav authors' NWM baseline is CDiT-B (width 768, depth 12) on 28 x 28 latents, 196 tokens a frame"),
)
"""What is known of the paper's own models (arXiv 2512.02473 v1 section 4.3; v3 by third-party notes)."""


@dataclass(frozen=True)
class InfoConfig:
    """Parameters and token budget of presets and models."""

    names: tuple[str, ...] = ()
    """Presets, shipped models or folders, whose context is shown level by level; all presets in short where none is named."""


@dataclass(frozen=True)
class LevelBudget:
    """One level of a packing."""

    kernel: int
    """Side of the square of latent cells that is one token."""
    recent: int
    """Newest frames."""
    retrieved: int
    """Retrieved frames."""
    tokens_per_frame: int
    """Padding included."""

    @property
    def tokens(self) -> int:
        """Tokens of the level."""
        return (self.recent + self.retrieved) * self.tokens_per_frame


@dataclass(frozen=True)
class Summary:
    """Sizes of a model."""

    name: str
    """Preset, shipped model or folder."""
    config: ModelConfig
    """Its configuration."""
    parameters: dict[str, int]
    """By part: autoencoder, denoiser, motion."""
    levels: tuple[LevelBudget, ...]
    """From the least to the most compressed."""
    target_tokens: int
    """Tokens of the frame to predict."""

    @property
    def context_tokens(self) -> int:
        """Tokens of a whole context."""
        return sum(level.tokens for level in self.levels)

    @property
    def frame_equivalents(self) -> float:
        """How many uncompressed frames have as many tokens as the context."""
        return self.context_tokens / self.target_tokens


def summarise(name: str) -> Summary:
    """Counts the parameters and tokens of a preset, a shipped model or a model's folder. No weights are made or read.

    Raises:
        CheckpointError: if there is no such preset or model.
    """
    config = PRESETS[name] if name in PRESETS else read_config(find_model(name))
    with torch.device("meta"):
        model = WorldPack(config)
    parameters = {part: sum(p.numel() for p in module.parameters()) for part, module in model.named_children()}
    rows, columns = config.latent_size
    levels = tuple(
        LevelBudget(level.kernel, level.recent, level.retrieved, -(-rows // level.kernel) * -(-columns // level.kernel))
        for level in config.packing.levels
    )
    return Summary(name, config, parameters, levels, model.denoiser.rows * model.denoiser.columns)
