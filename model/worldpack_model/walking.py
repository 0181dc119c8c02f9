"""How a body moves among blocks that are known: Minecraft's walking, jumping and falling, many bodies at a time.

What nobody knows is which blocks are there; that is the motion model's to say. Given the blocks, a step is arithmetic: where a wall stops a body, how
high a jump is after how many ticks, when it lands. A network that has to give those numbers as well errs a little in each step, and a body that is a
hand's breadth inside a wall, or hovers above the ground, is in a place where nobody was in training, and goes on from there to worse.

Speeds, drags and the order of things as the game has them (Minecraft 1.16; the embedded world's, and tested against it), for dry ground: a body in
water, or one that sneaks at an edge, is left to the network.

Legend: B bodies, S layouts of the blocks around a body, P blocks of a layout.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch

from worldpack_model.geometry import DYAW, TICKS_PER_STEP

_HALF_WIDTH, _HEIGHT = 0.3, 1.8
_JUMP, _GRAVITY, _VERTICAL_DRAG, _COOLDOWN_TICKS = 0.42, 0.08, 0.98, 10
_GROUND_DRAG, _AIR_DRAG = 0.546, 0.91
_GROUND_PUSH, _AIR_PUSH, _INPUT = 0.1, 0.02, 0.98
_SPRINT, _NEGLIGIBLE, _GAP = 1.3, 0.003, 1e-7
_RESTING: Final = -_GRAVITY * _VERTICAL_DRAG
"""Vertical velocity of a body on the ground."""
STILL: Final = (0.0, _RESTING, 0.0, 1.0, 0.0)
"""Momentum of a body that stands."""


class Walked(NamedTuple):
    """Where bodies get to."""

    motion: torch.Tensor
    """``(B, S, 3)`` world axes, blocks."""
    momentum: torch.Tensor
    """``(B, S, 5)`` velocity in blocks a tick, whether on the ground, ticks until a held jump key jumps again."""


def walk(pose: torch.Tensor, momentum: torch.Tensor, action: torch.Tensor, corners: torch.Tensor, solid: torch.Tensor) -> Walked:
    """One env step of bodies among blocks.

    Args:
        pose: ``(B, 5)`` before the step.
        momentum: ``(B, 5)`` as the step before left it.
        action: ``(B, 9)``.
        corners: ``(B, P, 3)`` lowest corners of the blocks asked about; what lies outside of them is air.
        solid: ``(B, S, P) bool`` layouts of those blocks.
    """
    layouts, held = solid.shape[1], action.double()[:, None] > 0.5
    yaw = torch.deg2rad(pose[:, None, 3] + action.double()[:, None, DYAW])
    forward, right = held[..., 0].double() - held[..., 1].double(), held[..., 3].double() - held[..., 2].double()
    jump, sprint = held[..., 4], held[..., 6] & (forward > 0)
    strength = _INPUT / torch.sqrt((_INPUT * forward) ** 2 + (_INPUT * right) ** 2).clamp_min(1.0)
    faster = torch.where(sprint, _SPRINT, 1.0)
    push = torch.stack([-forward * yaw.sin() - right * yaw.cos(), forward * yaw.cos() - right * yaw.sin()], dim=-1) * (strength * faster)[..., None]
    # places relative to the body: the box moves, the blocks stand
    low = (corners.double() - pose[:, None, :3])[:, None].expand(-1, layouts, -1, -1)
    at = torch.zeros((len(pose), layouts, 3), dtype=torch.float64, device=pose.device)
    velocity = momentum[:, None, :3].expand(-1, layouts, -1).clone()
    ground, cooldown = (momentum[:, None, i].expand(-1, layouts) for i in (3, 4))
    ground = ground > 0.5
    for _ in range(TICKS_PER_STEP):
        velocity = torch.where(velocity.abs() < _NEGLIGIBLE, 0.0, velocity)
        cooldown = (cooldown - 1).clamp_min(0) * jump
        jumps = jump & ground & (cooldown == 0)
        cooldown = torch.where(jumps, float(_COOLDOWN_TICKS), cooldown)
        pushed = velocity[..., [0, 2]] + push * torch.where(ground, _GROUND_PUSH, _AIR_PUSH)[..., None]
        leap = (0.2 * (jumps & sprint))[..., None] * torch.stack([-yaw.sin(), yaw.cos()], dim=-1)
        x, z = (pushed + leap).unbind(-1)
        wanted = torch.stack([x, torch.where(jumps, _JUMP, velocity[..., 1]), z], dim=-1)
        moved = _collide(at, wanted, low, solid)
        at = at + moved
        stopped = (moved - wanted).abs() > 1e-9
        drag = torch.where(ground, _GROUND_DRAG, _AIR_DRAG)
        ground = stopped[..., 1] & (wanted[..., 1] < 0)
        velocity = torch.where(stopped, 0.0, wanted)
        velocity = torch.stack([velocity[..., 0] * drag, _VERTICAL_DRAG * (velocity[..., 1] - _GRAVITY), velocity[..., 2] * drag], dim=-1)
    return Walked(at, torch.cat([velocity, ground.double()[..., None], cooldown[..., None]], dim=-1))


def momentum_of(motion: torch.Tensor) -> torch.Tensor:
    """Momentum ``(B, 5)`` that a step of ``motion (B, 3)`` blocks most likely left, where nobody has kept it.

    A body that neither rose nor fell is on the ground, another one in free flight: of n ticks that begin with velocity v it goes
    sum over k < n of d^k v - g (d + ... + d^k), with the drag d and gravity g.
    """
    d, n = _VERTICAL_DRAG, TICKS_PER_STEP
    lost = [_GRAVITY * sum(d**j for j in range(1, k + 1)) for k in range(n + 1)]
    begun = (motion[:, 1] + sum(lost[:n])) / sum(d**k for k in range(n))
    flying = motion[:, 1].abs() > 0.02
    upward = torch.where(flying, d**n * begun - lost[n], _RESTING)
    level = motion[:, [0, 2]] / n * torch.where(flying, _AIR_DRAG, _GROUND_DRAG)[:, None]
    rest = [(~flying).to(motion), torch.zeros_like(upward)]
    return torch.stack([level[:, 0], upward, level[:, 1], *rest], dim=-1)


def _collide(at: torch.Tensor, wanted: torch.Tensor, low: torch.Tensor, solid: torch.Tensor) -> torch.Tensor:
    """How far ``(B, S, 3)`` bodies at ``at`` come of ``wanted``: up or down first, then the longer way over ground, as the game does."""
    x_first = wanted[..., 0].abs() >= wanted[..., 2].abs()
    order = torch.where(x_first[..., None], torch.tensor([1, 0, 2], device=at.device), torch.tensor([1, 2, 0], device=at.device))  # (B, S, 3)
    place, step = at.gather(-1, order), wanted.gather(-1, order)
    block = low.gather(-1, order[:, :, None].expand(-1, -1, low.shape[2], -1)).unbind(-1)
    near = place - torch.tensor([0.0, _HALF_WIDTH, _HALF_WIDTH], dtype=at.dtype, device=at.device)
    far = place + torch.tensor([_HEIGHT, _HALF_WIDTH, _HALF_WIDTH], dtype=at.dtype, device=at.device)
    inside = [(block[i] < far[..., i, None] - _GAP) & (block[i] + 1 > near[..., i, None] + _GAP) for i in range(3)]
    moved = []
    for i in range(3):
        others = [inside[j] for j in range(3) if j != i]
        beside = solid & others[0] & others[1]
        ahead, behind = block[i] - far[..., i, None], block[i] + 1 - near[..., i, None]
        most = torch.where(beside & (ahead >= -_GAP), ahead.clamp_min(0), torch.inf).amin(-1)
        least = torch.where(beside & (behind <= _GAP), behind.clamp_max(0), -torch.inf).amax(-1)
        part = torch.maximum(torch.minimum(step[..., i], most), least)
        moved.append(part)
        inside[i] = (block[i] < (far[..., i] + part)[..., None] - _GAP) & (block[i] + 1 > (near[..., i] + part)[..., None] + _GAP)
    return torch.stack(moved, dim=-1).gather(-1, order.argsort(-1))
