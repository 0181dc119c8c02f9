"""Realised motion: from the current view and the action, the pose change that really happens (walls block, ground rises)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from worldpack_model.geometry import (
    ACTION_DIM,
    DPITCH,
    DYAW,
    TICKS_PER_STEP,
    WALK_BLOCKS_PER_TICK,
    from_local_torch,
    to_local_torch,
    wrap_degrees_torch,
)

BLOCKED_SHARE = 0.55
"""A commanded walk that covers less than this share of its free distance counts as blocked (a start from rest covers 0.73 of it)."""


class MotionPrediction(NamedTuple):
    """Two outcomes and which one is likelier."""

    blocked_logit: torch.Tensor
    """``(B,)``."""
    free: torch.Tensor
    """``(B, 3)`` (right, up, forward) in blocks in the turned body's frame, if nothing is in the way."""
    stopped: torch.Tensor
    """``(B, 3)`` the same, if the walk is blocked."""

    @property
    def blocked(self) -> torch.Tensor:
        """``(B,) bool``."""
        return self.blocked_logit > 0

    @property
    def local(self) -> torch.Tensor:
        """``(B, 3)`` the likelier outcome."""
        return torch.where(self.blocked[:, None], self.stopped, self.free)


class MotionModel(nn.Module):
    """A small convolutional head on the current latent.

    Besides the latent and the action it reads the last realised motion (stands for velocity: falling, rising) and where in its block the body
    stands, which decides how far a wall on the block grid is. Blocked and free motion are separate outcomes, because their mean never happens.
    """

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        cells = -(-size[0] // 2) * -(-size[1] // 2)
        self.look = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.SiLU(), nn.Flatten(),
            nn.Linear(32 * cells, 128),
        )  # fmt: skip
        self.body = nn.Linear(ACTION_DIM + 3 + 6 + 2 + 1, 128)
        self.head = nn.Sequential(nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 7))

    def forward(self, latents: torch.Tensor, actions: torch.Tensor, motion: torch.Tensor, poses: torch.Tensor) -> MotionPrediction:
        """Predicts from ``latents (B, C, h, w)``, ``actions (B, 9)``, last ``motion (B, 3)`` and current ``poses (B, 5)``."""
        phase = 2 * torch.pi * torch.remainder(poses[:, :3], 1.0)
        yaw = torch.deg2rad(poses[:, 3] + actions[:, DYAW])
        scale = actions.new_tensor([1.0] * 7 + [1 / 45, 1 / 45])
        state = [actions * scale, motion, phase.sin(), phase.cos(), yaw.sin()[:, None], yaw.cos()[:, None], poses[:, 4:5] / 45]
        out = self.head(self.look(latents) + self.body(torch.cat([s.to(latents.dtype) for s in state], dim=-1)))
        return MotionPrediction(out[:, 0], out[:, 1:4], out[:, 4:7])

    def loss(
        self, latents: torch.Tensor, actions: torch.Tensor, motion: torch.Tensor, poses: torch.Tensor, target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss against the realised local motion ``target (B, 3)``.

        Returns:
            The loss and the mean error of the likelier outcome in blocks, both scalars.
        """
        prediction = self(latents, actions, motion, poses)
        blocked = was_blocked(actions, target)
        outcome = torch.where(blocked[:, None], prediction.stopped, prediction.free)
        loss = F.smooth_l1_loss(outcome, target, beta=0.05) + 0.1 * F.binary_cross_entropy_with_logits(prediction.blocked_logit, blocked.float())
        return loss, (prediction.local - target).norm(dim=-1).mean().detach()


def commanded_distance(actions: torch.Tensor) -> torch.Tensor:
    """Free horizontal distance ``(B,)`` in blocks of one env step of ``actions (B, 9)`` on flat ground at steady speed."""
    forward = actions[:, 0] - actions[:, 1]
    sideways = actions[:, 3] - actions[:, 2]
    walking = (forward.abs() + sideways.abs()).clamp(max=1.0)
    factor = torch.where(actions[:, 5] > 0.5, 0.3, torch.where((actions[:, 6] > 0.5) & (forward > 0), 1.3, 1.0))
    return walking * factor * TICKS_PER_STEP * WALK_BLOCKS_PER_TICK


def was_blocked(actions: torch.Tensor, local: torch.Tensor) -> torch.Tensor:
    """``(B,) bool``: the commanded walk of ``actions (B, 9)`` was cut short, by the realised ``local (B, 3)`` motion in blocks."""
    commanded = commanded_distance(actions)
    blocked: torch.Tensor = (commanded > 0) & (local[:, [0, 2]].norm(dim=-1) < BLOCKED_SHARE * commanded)
    return blocked


def realised(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Realised (right, up, forward) ``(..., 3)`` in blocks between two poses ``(..., 5)``, in the frame of the body after its turn."""
    return to_local_torch(after[..., :3] - before[..., :3], after[..., 3])


def advance(poses: torch.Tensor, actions: torch.Tensor, local: torch.Tensor) -> torch.Tensor:
    """Next poses ``(B, 5)``: the camera turn happens first, then the body moves by ``local (B, 3)`` in its new frame."""
    yaw = wrap_degrees_torch(poses[:, 3] + actions[:, DYAW].to(poses.dtype))
    pitch = (poses[:, 4] + actions[:, DPITCH].to(poses.dtype)).clamp(-90.0, 90.0)
    position = poses[:, :3] + from_local_torch(local.to(poses.dtype), yaw)
    return torch.cat([position, yaw[:, None], pitch[:, None]], dim=-1)
