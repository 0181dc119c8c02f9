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

WIDTH: Final = 0.6
"""Side of the player's box in blocks."""
HEIGHT: Final = 1.8
"""Height of the player's box in blocks."""
JUMP_VELOCITY: Final = 0.42
GRAVITY: Final = 0.08
VERTICAL_DRAG: Final = 0.98
AIR_DRAG: Final = 0.91
SLIPPERINESS: Final = 0.6
"""Of every block here; ground drag is ``SLIPPERINESS * AIR_DRAG`` = 0.546."""
GROUND_ACCELERATION: Final = 0.1
AIR_ACCELERATION: Final = 0.02
SPRINT: Final = 1.3
INPUT_SCALE: Final = 0.98
"""The game scales held keys by this; it makes the steady walking speed 0.098 / (1 - 0.546) = 0.2159 blocks a tick."""
JUMP_COOLDOWN: Final = 10
"""Ticks before a held jump key jumps again."""
NEGLIGIBLE: Final = 0.003
"""Slower velocity components are set to zero, as the game does."""

_GAP: Final = 1e-7
_HALF_WIDTH: Final = 0.5 * WIDTH
_GROUND_DRAG: Final = SLIPPERINESS * AIR_DRAG
_RESTING: Final = -GRAVITY * VERTICAL_DRAG
"""Vertical velocity of a body on the ground."""
STILL: Final = (0.0, _RESTING, 0.0, 1.0, 0.0)
"""Momentum of a body that stands."""

_Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


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
    layouts, held = solid.shape[1], action[:, None] > 0.5
    yaw = torch.deg2rad(pose[:, None, 3] + action[:, None, DYAW].double())
    sin, cos = yaw.sin(), yaw.cos()
    forward, right = held[..., 0].double() - held[..., 1].double(), held[..., 3].double() - held[..., 2].double()
    jump, sprint = held[..., 4], held[..., 6] & (forward > 0)
    strength = INPUT_SCALE / (INPUT_SCALE * torch.sqrt(forward**2 + right**2)).clamp_min(1.0) * torch.where(sprint, SPRINT, 1.0)
    push_x, push_z = strength * (-forward * sin - right * cos), strength * (forward * cos - right * sin)
    # places relative to the body: the box moves, the blocks stand
    low_x, low_y, low_z = (corners.double() - pose[:, None, :3])[:, None].unbind(-1)  # each (B, 1, P)
    vx, vy, vz, ground, cooldown = (part.expand(-1, layouts) for part in momentum[:, None].unbind(-1))
    ground = ground > 0.5
    x = y = z = torch.zeros_like(vx)
    for _ in range(TICKS_PER_STEP):
        vx, vy, vz = (torch.where(v.abs() < NEGLIGIBLE, 0.0, v) for v in (vx, vy, vz))
        cooldown = (cooldown - 1).clamp_min(0) * jump
        jumps = jump & ground & (cooldown == 0)
        cooldown = torch.where(jumps, float(JUMP_COOLDOWN), cooldown)
        grip, leap = torch.where(ground, GROUND_ACCELERATION, AIR_ACCELERATION), 0.2 * (jumps & sprint)
        dx, dy, dz = vx + push_x * grip - leap * sin, torch.where(jumps, JUMP_VELOCITY, vy), vz + push_z * grip + leap * cos
        mx, my, mz = _collide((x, y, z), (dx, dy, dz), (low_x, low_y, low_z), solid)
        x, y, z = x + mx, y + my, z + mz
        drag = torch.where(ground, _GROUND_DRAG, AIR_DRAG)
        landed = (my - dy).abs() > 1e-9
        ground = landed & (dy < 0)
        vx, vz = (torch.where((m - d).abs() > 1e-9, 0.0, d) * drag for m, d in ((mx, dx), (mz, dz)))
        vy = VERTICAL_DRAG * (torch.where(landed, 0.0, dy) - GRAVITY)
    return Walked(torch.stack([x, y, z], dim=-1), torch.stack([vx, vy, vz, ground.double(), cooldown], dim=-1))


def momentum_of(motion: torch.Tensor) -> torch.Tensor:
    """Momentum ``(B, 5)`` that a step of ``motion (B, 3)`` blocks most likely left, where nobody has kept it.

    A body that neither rose nor fell is on the ground, another one in free flight: of n ticks that begin with velocity v it goes
    sum over k < n of d^k v - g (d + ... + d^k), with the drag d and gravity g.
    """
    d, n = VERTICAL_DRAG, TICKS_PER_STEP
    lost = [GRAVITY * sum(d**j for j in range(1, k + 1)) for k in range(n + 1)]
    begun = (motion[:, 1] + sum(lost[:n])) / sum(d**k for k in range(n))
    flying = motion[:, 1].abs() > 0.02
    upward = torch.where(flying, d**n * begun - lost[n], _RESTING)
    level = motion[:, [0, 2]] / n * torch.where(flying, AIR_DRAG, _GROUND_DRAG)[:, None]
    rest = [(~flying).to(motion), torch.zeros_like(upward)]
    return torch.stack([level[:, 0], upward, level[:, 1], *rest], dim=-1)


def _collide(at: _Three, wanted: _Three, low: _Three, solid: torch.Tensor) -> _Three:
    """How far, along x, y and z ``(B, S)``, bodies come of ``wanted``: up or down first, then the longer way over ground, as the game does."""
    (x, y, z), (dx, dy, dz), (low_x, low_y, low_z) = at, wanted, low
    in_x, in_z = _within(x, low_x), _within(z, low_z)
    my = _sweep(y, y + HEIGHT, dy, low_y, solid & in_x & in_z)
    top, feet = (y + my + HEIGHT)[..., None], (y + my)[..., None]
    level = solid & (low_y < top - _GAP) & (low_y + 1 > feet + _GAP)
    x_first = dx.abs() >= dz.abs()
    which = x_first[..., None]
    first, second = torch.where(x_first, x, z), torch.where(x_first, z, x)
    low_1, low_2 = torch.where(which, low_x, low_z), torch.where(which, low_z, low_x)
    m1 = _sweep(first - _HALF_WIDTH, first + _HALF_WIDTH, torch.where(x_first, dx, dz), low_1, level & torch.where(which, in_z, in_x))
    m2 = _sweep(second - _HALF_WIDTH, second + _HALF_WIDTH, torch.where(x_first, dz, dx), low_2, level & _within(first + m1, low_1))
    return torch.where(x_first, m1, m2), my, torch.where(x_first, m2, m1)


def _within(middle: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """``(B, S, P) bool``: whether blocks with lowest coordinate ``low`` reach into a body's width around ``middle (B, S)``."""
    return (low < middle[..., None] + (_HALF_WIDTH - _GAP)) & (low + 1 > middle[..., None] - (_HALF_WIDTH - _GAP))


def _sweep(near: torch.Tensor, far: torch.Tensor, wanted: torch.Tensor, low: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
    """How far ``(B, S)`` bodies from ``near`` to ``far`` along an axis come of ``wanted`` before a block that is ``beside (B, S, P)`` their way."""
    ahead, behind = low - far[..., None], low + 1 - near[..., None]
    most = torch.where(beside & (ahead >= -_GAP), ahead.clamp_min(0), torch.inf).amin(-1)
    least = torch.where(beside & (behind <= _GAP), behind.clamp_max(0), -torch.inf).amax(-1)
    return torch.maximum(torch.minimum(wanted, most), least)
