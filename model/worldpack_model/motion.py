"""Realised motion: from what is remembered and the action, the pose change that really happens (walls block, ground rises).

Whether a body can go on is seldom told by the current view: the block in front of the feet is below the picture's edge, and nobody sees what is
behind. Earlier views show it, and so do the places where the body has stood. So the motion model looks at all frames of the denoiser's context,
unpacked, each with its pose seen from the body, and at footprints: the remembered positions around the body.

Blocks lie along the axes of the world, so all of it is in world axes. What happens has few alternatives (free, stopped by this wall or that, up a
step), whose mean never happens: the model gives a mixture and takes the likeliest.

Legend: B batch, F context frames, K footprints, M alternatives.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from worldpack_model.config import ModelConfig
from worldpack_model.geometry import (
    DPITCH,
    DYAW,
    TICKS_PER_STEP,
    WALK_BLOCKS_PER_TICK,
    from_local_torch,
    to_local_torch,
    wrap_degrees_torch,
)
from worldpack_model.packing import Context
from worldpack_model.retrieval import Footprints

BLOCKED_SHARE = 0.55
"""A commanded walk that covers less than this share of its free distance counts as blocked (a start from rest covers 0.73 of it)."""
_WIDTH, _TRUNK_WIDTH, _ALTERNATIVES = 160, 256, 6
POSE_NOISE = 0.02
"""Blocks; standard deviation of the error put on poses in training."""
STRAYED_SHARE = 0.15
"""Share of the training samples whose body is too high or too low."""
ASIDE_SHARE = 0.25
"""Share of those whose body is beside where it stands."""
STRAYED_BLOCKS = 0.4
"""Blocks; standard deviation of how far beside, along each horizontal axis."""
_SAME = 0.1
"""Blocks; alternatives this near to each other are about the same."""
_TAIL = 0.05
"""Blocks; see the loss."""
_STATE = 30
_PLACE = 24


class Body(NamedTuple):
    """Where a body is and what it does."""

    pose: torch.Tensor
    """``(B, 5)`` before the step."""
    action: torch.Tensor
    """``(B, 9)``."""
    last_motion: torch.Tensor
    """``(B, 3)`` realised motion of the step before, world axes, blocks: stands for the velocity."""
    last_action: torch.Tensor
    """``(B, 9)`` the action of the step before; zero where there was none."""


def shaken(body: Body, after: torch.Tensor, generator: torch.Generator) -> tuple[Body, torch.Tensor]:
    """A training sample: the body's pose off by a little in half of the samples, and the motion ``(B, 3)`` that would lead to the truth.

    In play small errors add up, and a body that stands half a hand above the ground must find down again: walls and ground tell where it is.

    Args:
        body: true poses.
        after: ``(B, 5)`` true poses of the next frame.
        generator: CPU generator.
    """
    count = len(body.pose)
    noise = POSE_NOISE * torch.randn((count, 3), generator=generator, dtype=torch.float64)
    noise *= torch.rand((count, 1), generator=generator) < 0.5
    pose = torch.cat([body.pose[:, :3] + noise, body.pose[:, 3:]], dim=-1)
    return body._replace(pose=pose), after[:, :3] - pose[:, :3]


def strayed(
    body: Body, target: torch.Tensor, around: tuple[Context, Footprints], generator: torch.Generator
) -> tuple[Body, torch.Tensor, tuple[Context, Footprints]]:
    """A training sample in which some bodies believe to stand a block or two too high or too low, and some beside where they stand.

    In play a step up that was missed stays a block missed until something tells. Real frames and the places where the body stood for sure do, so
    this is learned here: the motion wanted leads to the true height. In half of those samples the error is as old as the imagined past and that
    is off by as much.

    Sideways nothing tells so exactly; trained to correct that too, the model strayed more by false corrections than it found back. There the
    motion wanted stays what it is: a body that is a little off learns not to be stopped by walls that it has not reached.

    Args:
        body: as :func:`shaken` gives it.
        target: ``(B, 3)`` motion wanted of it.
        around: true context and footprints.
        generator: CPU generator.
    """
    count = len(body.pose)

    def chance(share: float) -> torch.Tensor:
        return torch.rand((count, 1), generator=generator) < share

    offset = torch.zeros((count, 3), dtype=torch.float64)
    up = torch.randint(0, 2, (count, 1), generator=generator) * 2.0 - 1
    offset[:, 1:2] = up * (1 + chance(0.2).double()) * chance(STRAYED_SHARE)
    aside = STRAYED_BLOCKS * torch.randn((count, 2), generator=generator, dtype=torch.float64) * chance(ASIDE_SHARE)
    height, offset[:, [0, 2]] = offset.clone(), aside
    context, footprints = around
    past = (offset * chance(0.5))[:, None]
    shift = torch.nn.functional.pad(past * context.imagined[..., None], (0, context.poses.shape[-1] - 3))
    return (
        body._replace(pose=torch.cat([body.pose[:, :3] + offset, body.pose[:, 3:]], dim=-1)),
        target - height,
        (
            context._replace(poses=context.poses + shift),
            footprints._replace(positions=footprints.positions + past * footprints.imagined[..., None]),
        ),
    )


class MotionPrediction(NamedTuple):
    """Alternatives in world axes, in blocks."""

    logits: torch.Tensor
    """``(B, M)``."""
    means: torch.Tensor
    """``(B, M, 3)``."""

    @property
    def likeliest(self) -> torch.Tensor:
        """``(B, 3)`` the alternative with most probability around it; alternatives that say nearly the same count together."""
        apart = (self.means[:, :, None] - self.means[:, None]).abs().sum(-1)  # (B, M, M)
        support = (torch.softmax(self.logits, dim=-1)[:, None] * torch.exp(-apart / _SAME)).sum(-1)
        return self.means[torch.arange(len(support), device=support.device), support.argmax(-1)]


class MotionModel(nn.Module):
    """What the body would do by itself, from its state alone, and what the surroundings make of it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.trunk = _Trunk()
        self.surroundings = _Surroundings(config)

    def forward(self, body: Body, around: tuple[Context, Footprints] | None) -> MotionPrediction:
        """Predicts the motion of one env step; ``around`` None is a blind guess, for training."""
        state = _state(body)
        found = None if around is None else self.surroundings(body, state, *around).float()
        with torch.autocast(state.device.type, enabled=False):  # bf16 would round a step by a quarter of a hundredth of a block
            prediction: MotionPrediction = self.trunk(state, found)
        return prediction

    def loss(self, body: Body, around: tuple[Context, Footprints] | None, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss against the realised motion ``target (B, 3)`` in world axes.

        The negative log of a mixture whose alternatives all have the same tails: of distance d, exp(-d / ``_TAIL``), rounded at the top. A
        learned spread would fit better but does not learn: once it is narrow, the gradient of the last thousandth of a block drowns that of
        which alternative happens.

        Returns:
            The loss ``(B,)``, and the error ``(B,)`` of the likeliest alternative in blocks.
        """
        p = self(body, around)
        target = target.float()
        means = p.means
        off = F.smooth_l1_loss(means, target[:, None].expand_as(means), beta=_TAIL, reduction="none").sum(-1) / _TAIL
        loss = -torch.logsumexp(torch.log_softmax(p.logits, dim=-1) - off, dim=-1)
        return loss, (p.likeliest - target).norm(dim=-1).detach()


class _Trunk(nn.Module):
    """From the body's state, and what was found around it, to the alternatives."""

    def __init__(self) -> None:
        super().__init__()
        w = _TRUNK_WIDTH
        self.enter = nn.Linear(_STATE, w)
        self.net = nn.Sequential(nn.SiLU(), nn.Linear(w, w), nn.SiLU(), nn.Linear(w, w), nn.SiLU(), nn.Linear(w, 4 * _ALTERNATIVES))
        # a walk on open ground is linear in push and velocity, a stop at a wall in the place within the block: learned exactly and at once
        self.direct = nn.Linear(_STATE, 3 * _ALTERNATIVES)

    def forward(self, state: torch.Tensor, found: torch.Tensor | None) -> MotionPrediction:
        h = self.enter(state)
        out = self.net(h if found is None else h + found).reshape(-1, _ALTERNATIVES, 4).float()
        means = out[..., 1:] + self.direct(state).reshape(-1, _ALTERNATIVES, 3)
        return MotionPrediction(out[..., 0], means)


class _Surroundings(nn.Module):
    """Every frame and every footprint says by itself what it knows of the body's way; what they say is added up, and the strongest kept.

    Not attention over the frames' tokens, the denoiser's way: no frame has to be found, and one small network is read per frame.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        w, (rows, columns) = _WIDTH, config.latent_size
        self.look = nn.Sequential(
            nn.Conv2d(config.autoencoder.latent_channels, 32, 3, padding=1), nn.SiLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.SiLU(), nn.Flatten(),
            nn.Linear(32 * -(-rows // 2) * -(-columns // 2), w),
        )  # fmt: skip
        self.from_where = nn.Sequential(nn.Linear(_PLACE + _STATE + 5, w), nn.SiLU(), nn.Linear(w, 3 * w))
        self.shown = nn.Linear(w, w)
        self.stood = nn.Sequential(nn.Linear(_PLACE + _STATE + 1, 96), nn.SiLU(), nn.Linear(96, w), nn.SiLU())
        self.out = nn.Linear(4 * w, _TRUNK_WIDTH)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, body: Body, state: torch.Tensor, context: Context, footprints: Footprints) -> torch.Tensor:
        """What matters of what is around, ``(B, trunk width)``."""
        said = [self._seen(body, state, context), self._stood(body, state, footprints)]
        found: torch.Tensor = self.out(torch.cat([part for words in said for part in (words.sum(1) / 4, words.amax(1))], dim=-1))
        return found

    def _seen(self, body: Body, state: torch.Tensor, context: Context) -> torch.Tensor:
        """What frames say ``(B, F, D)``; their pictures are read in the light of where they were taken."""
        batch, frames = context.latents.shape[:2]
        offset = (context.poses[..., :3] - body.pose[:, None, :3]).float()
        yaw = torch.deg2rad(context.poses[..., 3]).float()
        parts = [
            _place(offset, body.pose),
            state[:, None].expand(-1, frames, -1),
            yaw.sin()[..., None],
            yaw.cos()[..., None],
            context.poses[..., 4:5].float() / 45,
            context.imagined[..., None].float(),
            torch.log1p(context.ages.float().clamp_min(1.0))[..., None],
        ]
        scale, shift, gate = self.from_where(torch.cat(parts, dim=-1)).chunk(3, dim=-1)
        picture = self.look(context.latents.flatten(0, 1)).reshape(batch, frames, -1)
        words: torch.Tensor = F.silu(self.shown(F.silu(picture * (1 + scale) + shift))) * torch.sigmoid(gate)
        return words * context.used[..., None]

    def _stood(self, body: Body, state: torch.Tensor, footprints: Footprints) -> torch.Tensor:
        """What footprints say ``(B, K, D)``."""
        offset = (footprints.positions - body.pose[:, None, :3]).float() * footprints.used[..., None]
        parts = [_place(offset, body.pose), footprints.imagined[..., None].float(), state[:, None].expand(-1, offset.shape[1], -1)]
        words: torch.Tensor = self.stood(torch.cat(parts, dim=-1)) * footprints.used[..., None]
        return words


def _place(point: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
    """Numbers ``(B, n, 24)`` that say where a point ``(B, n, 3)`` from the feet lies: how far, and where on the grid of blocks."""
    absolute = torch.remainder(pose[:, None, :3], 1.0).float() + point
    turn = 2 * torch.pi * absolute
    near = torch.pi / 4 * point.clamp(-4.0, 4.0)
    waves = [near.sin(), near.cos(), (2 * near).sin(), (2 * near).cos(), turn.sin(), turn.cos()]
    return torch.cat([torch.asinh(point), (point / 4).clamp(-2, 2), *waves], dim=-1)


def _push(action: torch.Tensor, yaw: torch.Tensor) -> torch.Tensor:
    """World direction ``(B, 2)`` (x, z) in which the held keys of ``action (B, 9)`` push a body that faces ``yaw (B,)``."""
    local = torch.stack([action[:, 3] - action[:, 2], torch.zeros_like(yaw), action[:, 0] - action[:, 1]], dim=-1)
    return from_local_torch(local, yaw)[:, [0, 2]]


def _state(body: Body) -> torch.Tensor:
    """Numbers ``(B, 30)`` that describe what the body does and where in its block it is."""
    yaw = (body.pose[:, 3] + body.action[:, DYAW]).float()
    action, before = body.action.float(), body.last_action.float()
    place = torch.remainder(body.pose[:, :3], 1.0).float()
    turn = 2 * torch.pi * place
    parts = [
        _push(action, yaw),
        action[:, 4:7],
        _push(before, body.pose[:, 3].float()),
        before[:, 4:7],
        body.last_motion.float(),
        place - 0.5,
        turn.sin(),
        turn.cos(),
        (2 * turn).sin(),
        (2 * turn).cos(),
        torch.deg2rad(yaw).sin()[:, None],
        torch.deg2rad(yaw).cos()[:, None],
    ]
    return torch.cat(parts, dim=-1)


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


def advance(poses: torch.Tensor, actions: torch.Tensor, motion: torch.Tensor) -> torch.Tensor:
    """Next poses ``(B, 5)``: the camera turns by the actions ``(B, 9)``, the body moves by ``motion (B, 3)`` in world axes."""
    yaw = wrap_degrees_torch(poses[:, 3] + actions[:, DYAW].to(poses.dtype))
    pitch = (poses[:, 4] + actions[:, DPITCH].to(poses.dtype)).clamp(-90.0, 90.0)
    return torch.cat([poses[:, :3] + motion.to(poses.dtype), yaw[:, None], pitch[:, None]], dim=-1)


def unhindered(poses: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Where ``actions (B, 9)`` would take bodies at ``poses (B, 5)`` on open flat ground: ``(B, 5)``; what retrieval looks for."""
    yaw = poses[:, 3] + actions[:, DYAW].to(poses.dtype)
    push = _push(actions.to(poses.dtype), yaw)
    push = push / push.norm(dim=-1, keepdim=True).clamp_min(1.0) * commanded_distance(actions).to(poses.dtype)[:, None]
    return advance(poses, actions, torch.stack([push[:, 0], torch.zeros_like(push[:, 0]), push[:, 1]], dim=-1))
