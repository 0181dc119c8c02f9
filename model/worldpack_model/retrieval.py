"""Pose-based memory retrieval: which past frames the next one is predicted from (paper section 4.2).

Legend: B slots, N remembered frames, F frames of the context.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from worldpack_model.config import PackingConfig, RetrievalConfig


class Selection(NamedTuple):
    """The frames of a context, in the packing's order: level by level, recent frames before retrieved ones."""

    indices: torch.Tensor
    """``(B, F) int64`` into the remembered frames; 0 where unused."""
    used: torch.Tensor
    """``(B, F) bool``."""


def view_direction(poses: torch.Tensor) -> torch.Tensor:
    """Unit view direction ``(..., 3)`` of poses ``(..., 5)``; torch twin of ``geometry.forward_vector``."""
    yaw, pitch = torch.deg2rad(poses[..., 3]), torch.deg2rad(poses[..., 4])
    return torch.stack([-torch.sin(yaw) * torch.cos(pitch), -torch.sin(pitch), torch.cos(yaw) * torch.cos(pitch)], dim=-1)


def log_score(query: torch.Tensor, poses: torch.Tensor, config: RetrievalConfig) -> torch.Tensor:
    """Log of the paper's retrieval score.

    With ``s`` the forward and ``l`` the lateral offset of a remembered pose from the query, and ``c`` the cosine between view directions::

        score = w_c max(c, 0)^k  exp(-s^2 / 2 sigma_s^2)        exp(-l^2 / 2 sigma_l^2)
              + w_a max(-c, 0)^k exp(-(s - mu)^2 / 2 sigma_s^2) exp(-l^2 / 2 sigma_l^2)

    The paper has k = 1. In log space no score underflows, so that far frames keep their order. Positions are compared on the ground plane, as
    in the paper.

    Args:
        query: ``(B, 5)`` pose of the frame to predict.
        poses: ``(B, N, 5)`` remembered poses.
        config: the constants.

    Returns:
        ``(B, N)`` log scores.
    """
    direction = view_direction(query)[:, None]  # (B, 1, 3)
    offset = poses[..., :3] - query[:, None, :3]
    offset = offset * offset.new_tensor([1.0, 0.0, 1.0])
    forward = (offset * direction).sum(-1)
    lateral2 = (offset.square().sum(-1) - forward.square()).clamp_min(0.0)
    cosine = (view_direction(poses) * direction).sum(-1)
    near = -lateral2 / (2 * config.sigma_lateral**2)
    two_sigma2 = 2 * config.sigma_forward**2

    def term(weight: float, agreement: torch.Tensor, mu: float) -> torch.Tensor:
        weights = torch.log(torch.full_like(agreement, max(weight, 1e-30)))
        return weights + config.sharpness * torch.log(agreement.clamp_min(1e-6)) - (forward - mu).square() / two_sigma2

    same, opposite = term(config.weight_same, cosine, 0.0), term(config.weight_opposite, -cosine, config.mu_opposite)
    return torch.logaddexp(same, opposite) + near


def select(
    packing: PackingConfig,
    config: RetrievalConfig,
    *,
    query: torch.Tensor,
    poses: torch.Tensor,
    steps: torch.Tensor,
    imagined: torch.Tensor,
) -> Selection:
    """Chooses the context of each slot: the newest frames, then the best scored of the rest by greedy non-maximum suppression.

    Args:
        packing: how many frames of each kind.
        config: constants of the score.
        query: ``(B, 5)`` pose of the frame to predict.
        poses: ``(B, N, 5)`` remembered poses, in any order.
        steps: ``(B, N) int64`` their step numbers, -1 where there is no frame; no number twice in a slot.
        imagined: ``(B, N) bool`` True for frames that the model imagined.
    """
    batch, count = steps.shape
    device = steps.device
    newest = min(packing.recent, count)
    order = steps.topk(newest, dim=1)
    recent_index = torch.zeros((batch, packing.recent), dtype=torch.int64, device=device)
    recent_used = torch.zeros((batch, packing.recent), dtype=torch.bool, device=device)
    recent_index[:, :newest], recent_used[:, :newest] = order.indices, order.values >= 0
    recent_index *= recent_used

    chosen_index = torch.zeros((batch, packing.retrieved), dtype=torch.int64, device=device)
    chosen_used = torch.zeros((batch, packing.retrieved), dtype=torch.bool, device=device)
    if packing.retrieved and count > newest:
        score = log_score(query, poses, config) - config.imagined_penalty * imagined
        score = score.masked_fill(steps < 0, -torch.inf).scatter(1, order.indices, -torch.inf).float()
        for k in range(packing.retrieved):
            best, index = score.max(dim=1)
            chosen_index[:, k], chosen_used[:, k] = index, best > -torch.inf
            distance = (steps - steps.gather(1, index[:, None])).abs()
            score = score.masked_fill(distance <= config.suppression_steps, -torch.inf)
        chosen_index *= chosen_used

    indices, used, r, m = [], [], 0, 0
    for level in packing.levels:
        indices += [recent_index[:, r : r + level.recent], chosen_index[:, m : m + level.retrieved]]
        used += [recent_used[:, r : r + level.recent], chosen_used[:, m : m + level.retrieved]]
        r, m = r + level.recent, m + level.retrieved
    return Selection(torch.cat(indices, dim=1), torch.cat(used, dim=1))


def retrieved_columns(packing: PackingConfig) -> list[int]:
    """Positions of the retrieved frames in a context, best first."""
    columns: list[int] = []
    start = 0
    for level in packing.levels:
        columns += range(start + level.recent, start + level.recent + level.retrieved)
        start += level.recent + level.retrieved
    return columns
