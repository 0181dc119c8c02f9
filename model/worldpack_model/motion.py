"""Realised motion: from what is remembered and the action, the pose change that really happens (walls block, ground rises).

Whether a body can go on is seldom told by the current view: the block in front of the feet is below the picture's edge, and nobody sees what is
behind. Earlier views show it, and so do the places where the body has stood. So the motion model asks all frames of the denoiser's context, unpacked,
and footprints, the remembered positions around the body, about the blocks that matter: each of them is looked up where it is in each picture. What
they say together goes to a network that knows how a body moves.

Blocks lie along the axes of the world, so all of it is in world axes. What happens has few alternatives (free, stopped by this wall or that, up a
step), whose mean never happens: the model gives a mixture and takes the likeliest. What is taken is then made exact (:func:`footed`): errors of a
hand's breadth would add up to bodies that hover over walls or stand in them.

A recording from an engine that tells which blocks are solid teaches that directly (:class:`Blocks`); others teach it by what the body did.

Legend: B batch, F context frames, K footprints, P blocks asked about, M alternatives, D width of what is said of a block.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from worldpack_model.config import ModelConfig
from worldpack_model.geometry import (
    BOX,
    DPITCH,
    DYAW,
    EYE_HEIGHT,
    FOOTING,
    TICKS_PER_STEP,
    WALK_BLOCKS_PER_TICK,
    camera_axes_torch,
    from_local_torch,
    to_local_torch,
    wrap_degrees_torch,
)
from worldpack_model.packing import Context
from worldpack_model.retrieval import Footprints
from worldpack_model.walking import momentum_of, walk

Choice = Literal["likeliest", "drawn"]
"""Which of the alternatives a body takes."""
BLOCKED_SHARE = 0.55
"""A commanded walk that covers less than this share of its free distance counts as blocked (a start from rest covers 0.73 of it)."""
_WIDTH, _SAID, _TRUNK_WIDTH, _TRUNK_LAYERS, _ALTERNATIVES = 32, 24, 256, 3, 6
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
_LEAST = 0.05
"""Probability below which an alternative is not drawn."""
_TAIL = 0.05
"""Blocks; see the loss."""
_SURE = (0.5, 0.05, 0.15, 0.3, 0.7, 0.85, 0.95)
"""Probabilities above which a block counts as solid, in each layout that is tried; the first wins where they make no difference."""
_REACH = 0.6
"""Blocks; what a body can do among blocks must be this near to what the network means, doubt included."""
_DOUBT = 0.06
"""Blocks for each unit of log odds; how much further from what the network means a way is for walking through blocks that it believes in."""
_STATE = 39
_SEEN, _STOOD = 15, 9
_AT_HAND = ("cpu",)
"""Kinds of devices that nobody has to wait for to know what they hold."""
_CELLS = (3, 6, 3)
"""Blocks asked about, along x, y and z: those a body can touch in one step."""
UNKNOWN = 2
"""Of a block that the recording does not tell."""


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


class Blocks(NamedTuple):
    """What a recording says of the blocks around a body; for training alone."""

    solid: torch.Tensor
    """``(B, *BOX) uint8``: 1 solid, 0 not, ``UNKNOWN``."""
    corner: torch.Tensor
    """``(B, 3) int64`` lowest corner of the box."""


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


def forgetful(around: tuple[Context, Footprints], share: float, newest: int, generator: torch.Generator) -> tuple[Context, Footprints]:
    """A training sample in which some bodies remember their newest frames only: one motion model then serves worlds with and without a memory.

    Args:
        around: context and footprints.
        share: of the samples.
        newest: frames that a model without a memory has.
        generator: CPU generator.
    """
    context, footprints = around
    forgets = torch.rand((len(context.ages), 1), generator=generator) < share
    fresh = context.used & (context.ages <= newest)
    count = min(newest, fresh.shape[1], footprints.used.shape[1])
    column = context.ages.masked_fill(~fresh, torch.iinfo(torch.int64).max).topk(count, dim=1, largest=False).indices
    places = context.poses[..., :3].gather(1, column[..., None].expand(-1, -1, 3))
    own = Footprints(places, context.imagined.gather(1, column), fresh.gather(1, column))
    room = footprints.used.shape[1] - count
    positions, imagined, used = (torch.cat([part, part.new_zeros((len(part), room, *part.shape[2:]))], dim=1) for part in own)
    return (
        context._replace(used=torch.where(forgets, fresh, context.used)),
        Footprints(
            torch.where(forgets[..., None], positions, footprints.positions),
            torch.where(forgets, imagined, footprints.imagined),
            torch.where(forgets, used, footprints.used),
        ),
    )


class MotionPrediction(NamedTuple):
    """Alternatives in world axes, in blocks."""

    logits: torch.Tensor
    """``(B, M)``."""
    means: torch.Tensor
    """``(B, M, 3)``."""
    solid: torch.Tensor | None = None
    """``(B, P)`` log odds that the blocks asked about are solid; None of a blind guess, and where the model was not taught them."""

    @property
    def _support(self) -> torch.Tensor:
        """``(B, M)`` probability of each alternative and of those near to it."""
        apart = (self.means[:, :, None] - self.means[:, None]).abs().sum(-1)  # (B, M, M)
        return (torch.softmax(self.logits, dim=-1)[:, None] * torch.exp(-apart / _SAME)).sum(-1)

    @property
    def likeliest(self) -> torch.Tensor:
        """``(B, 3)`` the alternative with most probability around it; alternatives that say nearly the same count together."""
        support = self._support
        return self.means[torch.arange(len(support), device=support.device), support.argmax(-1)]

    def drawn(self, chance: torch.Tensor) -> torch.Tensor:
        """``(B, 3)`` an alternative drawn by its probability, for ``chance (B,)`` uniform in [0, 1): the lower it is, the less far it goes.

        The likeliest alternative is right most often, but what is never likeliest then never happens: a wall that nobody has seen yet, one in ten
        steps, stops nobody. Alternatives without any support to speak of are a trained mixture's leftovers, and left out.

        Least far first, so that equal chances mean the same for different actions: what stops a walk may let a jump pass, and a chance that
        stops the jump stops the walk.
        """
        order = self.means[..., [0, 2]].norm(dim=-1).argsort(dim=-1, stable=True)
        probability = torch.where(self._support >= _LEAST, torch.softmax(self.logits, dim=-1), 0.0).gather(1, order)
        ends = probability.cumsum(-1)
        rank = (chance[:, None] * ends[:, -1:] >= ends).sum(-1).clamp(max=ends.shape[1] - 1)
        index = order.gather(1, rank[:, None])[:, 0]
        return self.means[torch.arange(len(index), device=index.device), index]


def footed(body: Body, momentum: torch.Tensor, prediction: MotionPrediction, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The way of a body among blocks that is nearest to what the network means.

    The network says what happens, with errors of a hand's breadth; which blocks it thinks are there says what can happen exactly (:func:`walk`), by
    how sure it must be of a block to count it, from nearly surely to hardly. Ways through blocks that are believed in count as further off, or a body
    that means to go on walks through every wall. Where none is near what the network means, as in water, that stands; so it does where the network
    was not taught blocks, and of a body that sneaks.

    Args:
        body: before the step.
        momentum: ``(B, 5)`` as the step before left it.
        prediction: of the network.
        wanted: ``(B, 3)`` which of its alternatives.

    Returns:
        The motion ``(B, 3)``, and the momentum ``(B, 5)`` that it leaves.
    """
    if prediction.solid is None:
        return wanted.double(), momentum_of(wanted.double())
    sure = [math.log(p / (1 - p)) for p in _SURE]
    ways, left = walk(body.pose, momentum, body.action, _cells(body), torch.stack([prediction.solid > least for least in sure], dim=1))
    off = (ways - wanted[:, None]).norm(dim=-1)
    off = torch.stack([off[:, n] + _DOUBT * max(least, 0.0) for n, least in enumerate(sure)], dim=1)
    off, best = torch.where(body.action[:, None, 5] > 0.5, torch.inf, off).min(dim=1)
    row = torch.arange(len(best), device=best.device)
    near = (off < _REACH)[:, None]
    return torch.where(near, ways[row, best], wanted.double()), torch.where(near, left[row, best], momentum_of(wanted.double()))


class MotionModel(nn.Module):
    """What the body would do by itself, from its state alone, and what the surroundings make of it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.trunk = _Trunk()
        self.surroundings = _Surroundings(config)
        self.knows_blocks = config.knows_blocks

    def forward(self, body: Body, around: tuple[Context, Footprints] | None) -> MotionPrediction:
        """Predicts the motion of one env step; ``around`` None is a blind guess, for training."""
        if around is None:
            return self._alternatives(body, None)
        found, solid = self.surroundings(body, *around)
        return self._alternatives(body, found)._replace(solid=solid.float() if self.knows_blocks else None)

    def _alternatives(self, body: Body, found: torch.Tensor | None) -> MotionPrediction:
        state = _state(body)
        with torch.autocast(state.device.type, enabled=False):  # bf16 would round a step by a quarter of a hundredth of a block
            prediction: MotionPrediction = self.trunk(state, None if found is None else found.float())
        return prediction

    def loss(
        self, body: Body, around: tuple[Context, Footprints] | None, target: torch.Tensor, blocks: Blocks | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Loss against the realised motion ``target (B, 3)`` in world axes.

        The negative log of a mixture whose alternatives all have the same tails: of distance d, exp(-d / ``_TAIL``), rounded at the top. A
        learned spread would fit better but does not learn: once it is narrow, the gradient of the last thousandth of a block drowns that of
        which alternative happens.

        Returns:
            The loss ``(B,)``, the error ``(B,)`` of the likeliest alternative in blocks, and the cross-entropy ``(B,)`` of what ``blocks`` tells,
            a mean over the blocks asked about (0 for those it does not tell).
        """
        found, solid = (None, None) if around is None else self.surroundings(body, *around)
        p = self._alternatives(body, found)
        target = target.float()
        means = p.means
        off = F.smooth_l1_loss(means, target[:, None].expand_as(means), beta=_TAIL, reduction="none").sum(-1) / _TAIL
        loss = -torch.logsumexp(torch.log_softmax(p.logits, dim=-1) - off, dim=-1)
        told = torch.zeros_like(loss)
        if blocks is not None and solid is not None:
            truth = _blocks_at(blocks, _cells(body))
            entropy = F.binary_cross_entropy_with_logits(solid.float(), (truth == 1).float(), reduction="none")
            told = (entropy * (truth != UNKNOWN)).mean(-1)
        return loss, (p.likeliest - target).norm(dim=-1).detach(), told


class _Trunk(nn.Module):
    """From the body's state, and what was found around it, to the alternatives."""

    def __init__(self) -> None:
        super().__init__()
        w = _TRUNK_WIDTH
        self.enter = nn.Linear(_STATE, w)
        # residual and normalised: told the blocks around it, this has 0.6 of a plain network's error after as many steps
        self.layers = nn.ModuleList(nn.Linear(w, w) for _ in range(_TRUNK_LAYERS))
        self.out = nn.Linear(w, 4 * _ALTERNATIVES)
        # a walk on open ground is linear in push and velocity, a stop at a wall in the place within the block: learned exactly and at once
        self.direct = nn.Linear(_STATE, 3 * _ALTERNATIVES)

    def forward(self, state: torch.Tensor, found: torch.Tensor | None) -> MotionPrediction:
        h = self.enter(state)
        h = F.silu(h if found is None else h + found)
        for layer in self.layers:
            h = h + F.silu(layer(F.layer_norm(h, h.shape[-1:])))
        out = self.out(h).reshape(-1, _ALTERNATIVES, 4).float()
        means = out[..., 1:] + self.direct(state).reshape(-1, _ALTERNATIVES, 3)
        return MotionPrediction(out[..., 0], means)


class _Surroundings(nn.Module):
    """Every frame and every footprint says what it knows of every block asked about; what they say is added up, and the strongest kept.

    Not attention over the frames' tokens, the denoiser's way: no frame has to be found, and one small network is read per frame. What is in the way
    between a frame and a block nobody knows here; that is left to the network, which is told how far away the block is.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        w, count = _WIDTH, math.prod(_CELLS)
        # a cell of a latent is eight pixels wide already, so one look at its neighbours is enough; it is read of every frame in every step
        self.look = nn.Sequential(nn.Conv2d(config.autoencoder.latent_channels, w, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(w, w, 1))
        self.half_up = math.tan(math.radians(config.vertical_fov) / 2)
        self.half_right = self.half_up * config.frame_size[1] / config.frame_size[0]
        self.from_where = nn.Linear(_SEEN, w)
        self.which = nn.Parameter(torch.randn(count, w) * 0.02)
        self.seen, self.stood = _words(nn.Identity(), w), _words(nn.Linear(_STOOD, w), w)
        self.both = nn.Sequential(nn.Linear(4 * _SAID, _SAID), nn.SiLU())
        self.together = nn.Sequential(nn.Linear(count * _SAID, _TRUNK_WIDTH), nn.SiLU())
        self.solid_alone, self.solid_together = nn.Linear(_SAID, 1), nn.Linear(_TRUNK_WIDTH, count)
        self.out = nn.Linear(_TRUNK_WIDTH, _TRUNK_WIDTH)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, body: Body, context: Context, footprints: Footprints) -> tuple[torch.Tensor, torch.Tensor]:
        """What matters of what is around, ``(B, trunk width)``, and log odds ``(B, P)`` that the blocks asked about are solid."""
        middle = _cells(body) + 0.5
        said = [self._seen(middle, context), self._stood(middle, footprints)]
        # four frames' words are about as many as one block's words can be learned from
        cells = self.both(torch.cat([part for words in said for part in (words.sum(1) / 4, words.amax(1))], dim=-1))
        together = self.together(cells.flatten(1))  # ground goes on where nobody looked
        return self.out(together), self.solid_alone(cells)[..., 0] + self.solid_together(together)

    def _seen(self, middle: torch.Tensor, context: Context) -> torch.Tensor:
        """What frames say ``(B, F, P, D)`` of blocks around ``middle (B, P, 3)``; nothing of those outside their picture."""
        batch, frames = context.latents.shape[:2]
        here = middle[:, :1]  # float32 holds places near the body, not in the world
        eye = (context.poses[..., :3] - here).float()
        eye[..., 1] += EYE_HEIGHT
        offset = (middle - here).float()[:, None] - eye[:, :, None]  # (B, F, P, 3)
        with torch.autocast(offset.device.type, enabled=False):  # places, not words: bf16 would put a block into another cell
            right, up, ahead = (offset @ camera_axes_torch(context.poses).mT.float()).unbind(-1)
        depth = ahead.clamp_min(0.15)
        x, y = right / (depth * self.half_right), -up / (depth * self.half_up)
        inside = (ahead > 0.15) & (x.abs() < 1.1) & (y.abs() < 1.1) & context.used[..., None]
        pairs, frame, block = _pairs(inside)
        x, y, up, ahead = (part.flatten()[pairs].clamp(-8, 8) for part in (x, y, up, ahead))
        offset = offset.reshape(-1, 3)[pairs]
        distance = offset.norm(dim=-1)
        every = [
            context.imagined.float(), torch.log1p(context.ages.float().clamp_min(1.0)), (context.ages == 1).float(),
            torch.deg2rad(context.poses[..., 4]).float(), torch.ones_like(context.ages, dtype=torch.float32),
        ]  # fmt: skip
        parts = [
            torch.stack([x, y, ahead / 4, torch.log1p(distance), 1 / (0.5 + distance)], dim=-1),
            offset / distance.clamp_min(1e-3)[:, None], up[:, None] / 4, offset[:, 1:2].clamp(-8, 8) / 4,
            torch.stack(every, dim=-1).flatten(0, 1)[frame],
        ]  # fmt: skip
        # the last of look's layers mixes no neighbours, so it is run where the picture is looked at, not everywhere
        convolve, rectify, last = self.look
        assert isinstance(last, nn.Conv2d)
        asked, which = _asked(frame, batch * frames)
        pictures = context.latents.flatten(0, 1)[asked].contiguous(memory_format=torch.channels_last)  # as they are looked at, cell by cell
        picture = _looked_at(rectify(convolve(pictures)), which, x, y)
        picture = F.linear(picture, last.weight[..., 0, 0], last.bias)
        told = self.from_where(torch.cat(parts, dim=-1)) + (self.which[block] + picture)
        words: torch.Tensor = self.seen(told) * inside.flatten()[pairs][:, None]
        none = words.new_zeros((inside.numel(), words.shape[1]))
        return none.index_copy(0, pairs, words).reshape(batch, frames, -1, words.shape[1])

    def _stood(self, middle: torch.Tensor, footprints: Footprints) -> torch.Tensor:
        """What footprints say ``(B, K, P, D)`` of blocks around ``middle (B, P, 3)``."""
        here = middle[:, :1]
        offset = (footprints.positions - here).float()[:, :, None] - (middle - here).float()[:, None]  # (B, K, P, 3)
        near = offset.clamp(-3, 3)
        parts = [near / 3, torch.tanh(2 * near), near.square() / 9]
        trust = footprints.used * (1.0 - 0.5 * footprints.imagined.float())
        words: torch.Tensor = self.stood(torch.cat(parts, dim=-1)) * trust[..., None, None]
        return words


def _pairs(inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which pairs of a frame and a block ``inside (B, F, P)`` are to be asked: their places in it, flat, with their frames' and blocks' numbers.

    Four of five blocks are outside of a picture. A processor leaves them out; a GPU would have to tell how many are left, and asks all, as does
    compiled code, which knows one shape.
    """
    every = torch.arange(inside.numel(), device=inside.device)
    pairs = every if _asks_all(inside) else every[inside.flatten()]
    return pairs, pairs // inside.shape[2], pairs % inside.shape[2]


def _asks_all(found: torch.Tensor) -> bool:
    """Whether every block is asked about in every frame, whatever ``found`` on the way."""
    return found.device.type not in _AT_HAND or torch.compiler.is_compiling()


def _asked(frame: torch.Tensor, count: int) -> tuple[torch.Tensor | slice, torch.Tensor]:
    """Which of ``count`` frames are asked at all, if not all, and which of those ``frame (n,)``, in ascending order, are."""
    if _asks_all(frame):
        return slice(None), frame
    asked, which = torch.unique_consecutive(frame, return_inverse=True)
    return asked, which


def _looked_at(pictures: torch.Tensor, which: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """What ``pictures (N, C, h, w)`` show ``(n, C)`` at points ``x, y (n,)`` of pictures ``which (n,)``, from -1 to 1, between their cells' middles.

    ``grid_sample`` (bilinear, border) for points that are not as many in each picture.
    """
    height, width = pictures.shape[-2:]
    cells = pictures.permute(0, 2, 3, 1).reshape(-1, pictures.shape[1]).to(x.dtype)  # in training with bf16 the points are still exact
    across, down = (((v + 1) * size / 2 - 0.5).clamp(0, size - 1) for v, size in ((x, width), (y, height)))
    left, top = across.long(), down.long()
    right, bottom = (left + 1).clamp_max(width - 1), (top + 1).clamp_max(height - 1)
    aside, below = (across - left)[:, None], (down - top)[:, None]
    upper = torch.lerp(cells[(which * height + top) * width + left], cells[(which * height + top) * width + right], aside)
    lower = torch.lerp(cells[(which * height + bottom) * width + left], cells[(which * height + bottom) * width + right], aside)
    return torch.lerp(upper, lower, below)


def _words(first: nn.Module, width: int) -> nn.Sequential:
    """A network for what is said of a block: numbers ``(..., D)``, 0 for nothing. Rectified: it is run for every block in every frame."""
    return nn.Sequential(first, nn.ReLU(), nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, _SAID), nn.ReLU(inplace=True))


def _crossed(body: Body) -> torch.Tensor:
    """Lowest corner ``(B, 3)`` of the block in the middle of the way that the body would go, at the height of its feet."""
    half_way = 0.5 * (body.pose + unhindered(body.pose, body.action))
    return torch.stack([half_way[:, 0], body.pose[:, 1] + FOOTING, half_way[:, 2]], dim=-1).floor()


def _cells(body: Body) -> torch.Tensor:
    """Lowest corners ``(B, P, 3)`` of the blocks asked about: around the middle of the way that the body would go."""
    corner = _crossed(body) - body.pose.new_tensor([1, 3, 1])
    ranges = [torch.arange(n, device=corner.device) for n in _CELLS]
    return corner[:, None] + torch.stack(torch.meshgrid(*ranges, indexing="ij"), dim=-1).reshape(-1, 3)


def _blocks_at(blocks: Blocks, cells: torch.Tensor) -> torch.Tensor:
    """What ``blocks`` tells ``(B, P) uint8`` of the blocks with lowest corners ``cells (B, P, 3)``; ``UNKNOWN`` outside of the box."""
    at = (cells - blocks.corner[:, None]).long()
    size = torch.tensor(BOX, device=at.device)
    inside = ((at >= 0) & (at < size)).all(-1)
    x, y, z = torch.where(inside[..., None], at, 0).unbind(-1)
    told = blocks.solid.flatten(1).gather(1, (x * BOX[1] + y) * BOX[2] + z)
    return torch.where(inside, told, UNKNOWN)


def chances_of_places(seeds: torch.Tensor, body: Body) -> torch.Tensor:
    """Uniform numbers ``(B,)`` in [0, 1), the same whenever a body of the same seed is about to cross the same column of blocks.

    What nobody has seen has to be invented, and what was invented has to stay: drawn anew in every step, a wall that stopped a body would let it
    through in the next.

    Args:
        seeds: ``(B,) int64``, one an episode.
        body: B bodies.
    """
    x, _, z = _crossed(body).long().unbind(-1)
    mixed = seeds ^ (x * 0x1F123BB5159A55E5) ^ (z * 0x2545F4914F6CDD1D)
    for _ in range(2):  # the finisher of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014); constants as signed numbers
        mixed = (mixed ^ (mixed >> 30 & (1 << 34) - 1)) * -0x40A7B892E31B1A47
        mixed = (mixed ^ (mixed >> 27 & (1 << 37) - 1)) * -0x6B2FB644ECCEEE15
        mixed = mixed ^ (mixed >> 31 & (1 << 33) - 1)
    return (mixed & (1 << 24) - 1).float() / (1 << 24)


def _push(action: torch.Tensor, yaw: torch.Tensor) -> torch.Tensor:
    """World direction ``(B, 2)`` (x, z) in which the held keys of ``action (B, 9)`` push a body that faces ``yaw (B,)``."""
    local = torch.stack([action[:, 3] - action[:, 2], torch.zeros_like(yaw), action[:, 0] - action[:, 1]], dim=-1)
    return from_local_torch(local, yaw)[:, [0, 2]]


def _state(body: Body) -> torch.Tensor:
    """Numbers ``(B, 39)`` that describe what the body does, where in its block it is and where in the block that its way crosses."""
    yaw = (body.pose[:, 3] + body.action[:, DYAW]).float()
    action, before = body.action.float(), body.last_action.float()
    place = torch.remainder(body.pose[:, :3], 1.0).float()
    turn = 2 * torch.pi * place
    across = (body.pose[:, :3] - _crossed(body)).float()
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
        across,
        (torch.pi * across).sin(),
        (torch.pi * across).cos(),
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
