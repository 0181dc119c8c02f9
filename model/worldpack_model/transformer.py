"""CDiT: the conditional diffusion transformer that predicts the next latent from a packed context.

Each block does self-attention inside the target frame, cross-attention to the context and a feed-forward part, modulated by adaLN-zero on
diffusion time and motion (NWM, which the paper builds on). Two things differ, both for cost and both on purpose:

* the context is not modulated by diffusion time, so the keys and values of all layers are one matrix product per env step, exact and shared by
  all denoising evaluations;
* the geometry sits in the attention. Queries and keys carry a rotary code of the *world direction* of their token's ray: azimuth with integer
  frequencies, so that yaw wraps, and elevation. The same direction seen from two poses matches by construction. A context token is first moved to
  the target's eye: a depth along its ray, learned for each head from the token's content, gives a point, and the point's direction from the target
  camera is what is encoded. Values carry the code too and the output is turned back by the query's (GTA, arXiv 2310.10375), so a layer learns
  how far beside its own ray the content lies.

Legend: B batch, N target tokens, S context tokens, H heads, L layers, D width, P rotary pairs of a head.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from worldpack_model.checkpoint import bf16_units
from worldpack_model.config import ModelConfig
from worldpack_model.geometry import ACTION_DIM, camera_rays, to_local_torch, world_rays_torch
from worldpack_model.packing import Context, TrajectoryPacking

_PRODUCTS_ARE_FASTER = bf16_units() == {"avx512_bf16"}
"""Whether attention in bfloat16 takes less time as two products than fused, on a processor that does not run compiled code."""


class Turn(NamedTuple):
    """A rotary code: P angles as their cosines and sines."""

    cosine: torch.Tensor
    """``(..., P)``."""
    sine: torch.Tensor
    """``(..., P)``."""

    def back(self) -> Turn:
        """The turn that undoes this one."""
        return Turn(self.cosine, -self.sine)


class PackedContext(NamedTuple):
    """Keys and values of all layers: made once per env step, used by every evaluation."""

    keys: tuple[torch.Tensor, ...]
    """For each layer ``(B, H, S, head_dim)``."""
    values: tuple[torch.Tensor, ...]
    """For each layer ``(B, H, S, head_dim)``."""
    mask: torch.Tensor
    """``(B, 1, 1, S) bool``."""
    turn: Turn
    """Rotary code of the target, each part ``(B, 1, N, P)``."""

    def rows(self, chosen: torch.Tensor) -> PackedContext:
        """The part of the batch named by ``chosen (n,) int64``, detached."""
        keys, values = (tuple(part.detach()[chosen] for part in parts) for parts in (self.keys, self.values))
        return PackedContext(keys, values, self.mask[chosen], Turn(*(part.detach()[chosen] for part in self.turn)))


def rotate(x: torch.Tensor, turn: Turn) -> torch.Tensor:
    """Turns the pairs (p, P + p) of ``x (..., 2 P)``.

    Real arithmetic on halves, not a complex product on neighbours: there are no complex numbers of bf16, and no compiler fuses them.
    """
    cosine, sine = turn.cosine.to(x.dtype), turn.sine.to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    if not torch.is_grad_enabled() and not torch.compiler.is_compiling():  # the same products, each half written where it belongs
        turned = torch.empty_like(x, memory_format=torch.contiguous_format)
        first, second = turned.chunk(2, dim=-1)
        torch.mul(a, cosine, out=first).addcmul_(b, sine, value=-1)
        torch.mul(a, sine, out=second).addcmul_(b, cosine)
        return turned
    return torch.cat([torch.addcmul(a * cosine, b, sine, value=-1), torch.addcmul(a * sine, b, cosine)], dim=-1)


class RayCode(nn.Module):
    """Angles of the rotary code: azimuth (integer frequencies), elevation and age share a head's pairs."""

    def __init__(self, pairs: int, geometry: str) -> None:
        super().__init__()
        by_time = pairs // 5 if geometry == "rays" else pairs
        by_azimuth = (pairs - by_time) * 3 // 5
        by_elevation = pairs - by_time - by_azimuth
        # Integers from 1 (whole circle) to 28 (13 degrees, finer than a token), denser at the coarse end.
        azimuth = torch.linspace(0, math.log(28.0), max(by_azimuth, 1), device="cpu").exp().round()[:by_azimuth]
        for i in range(1, by_azimuth):
            azimuth[i] = max(azimuth[i], azimuth[i - 1] + 1)
        elevation = torch.linspace(0, math.log(28.0), max(by_elevation, 1)).exp()[:by_elevation]
        time = torch.linspace(math.log(1.0), math.log(1 / 256.0), by_time).exp()
        for name, values in (("azimuth", azimuth), ("elevation", elevation), ("time", time)):
            self.register_buffer(name, values.float(), persistent=False)
        self.azimuth: torch.Tensor
        self.elevation: torch.Tensor
        self.time: torch.Tensor

    def forward(self, directions: torch.Tensor, ages: torch.Tensor) -> Turn:
        """Code, each part ``(..., P)``, of ``directions (..., 3)`` (any length) and ``ages (...)`` in env steps."""
        x, y, z = directions.unbind(-1)
        level = (x.square() + z.square() + 1e-6).sqrt()
        azimuth, elevation = torch.atan2(-x, z), torch.atan2(y, level)
        angles = torch.cat([azimuth[..., None] * self.azimuth, elevation[..., None] * self.elevation, ages[..., None] * self.time], dim=-1)
        return Turn(angles.cos(), angles.sin())


class Block(nn.Module):
    """Self-attention, cross-attention to the packed context, feed-forward; adaLN-zero with nine modulation vectors."""

    def __init__(self, width: int, head_dim: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads, self.head_dim = width // head_dim, head_dim
        self.modulation = nn.Linear(width, 9 * width)
        self.qkv, self.self_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.query, self.cross_out = nn.Linear(width, width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, mlp_ratio * width), nn.Linear(mlp_ratio * width, width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: torch.Tensor, modulation: torch.Tensor, context: PackedContext, layer: int) -> torch.Tensor:
        """Updates the target's tokens ``x (B, N, D)``; ``modulation (B, 9 D)`` from diffusion time and motion."""
        batch, count, width = x.shape
        m = [part[:, None] for part in modulation.chunk(9, dim=-1)]
        undone = context.turn.back()

        def heads(y: torch.Tensor) -> torch.Tensor:  # (B, N, D) -> (B, H, N, head_dim)
            return y.reshape(batch, count, self.heads, self.head_dim).transpose(1, 2)

        def back(y: torch.Tensor) -> torch.Tensor:  # (B, H, N, head_dim) -> (B, N, D), seen from each token's own ray
            return rotate(y, undone).transpose(1, 2).reshape(batch, count, width)

        q, k, v = (heads(part) for part in self.qkv(_modulate(x, m[0], m[1])).chunk(3, dim=-1))
        q, k, v = (rotate(part, context.turn) for part in (_unit(q), _unit(k), v))
        x = x + m[2] * self.self_out(back(_attend(q, k, v)))

        q = rotate(_unit(heads(self.query(_modulate(x, m[3], m[4])))), context.turn)
        seen = _attend(q, context.keys[layer], context.values[layer], context.mask)
        x = x + m[5] * self.cross_out(back(seen))

        h = F.gelu(self.up(_modulate(x, m[6], m[7])))
        return torch.add(x, m[8] * self.down(h))


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Attention of ``q (B, H, N, d)`` to ``k`` and ``v (B, H, S, d)``, where ``mask (B, 1, 1, S)`` is True."""
    q, k = q.to(v.dtype), k.to(v.dtype)
    if torch.is_grad_enabled() and q.device.type == "cpu":
        # the fused kernel's backward pass is much slower than these products on a processor with bf16 units
        logits = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
        if mask is not None:
            logits = logits.masked_fill(~mask, -1e4)
        return torch.softmax(logits, dim=-1).to(v.dtype) @ v
    if v.dtype == torch.bfloat16 and q.device.type == "cpu" and _PRODUCTS_ARE_FASTER and not torch.compiler.is_compiling():
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if mask is not None and not bool(mask.all()):
            logits = logits.masked_fill(~mask, -1e4)
        return torch.softmax(logits, dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), 1 + scale)


def _unit(x: torch.Tensor) -> torch.Tensor:
    """Normalises a head: keeps attention logits bounded at high learning rates."""
    return F.layer_norm(x, x.shape[-1:])


_FEATURES = 18
"""Numbers that describe a context token's pose, ray and age."""


class CDiT(nn.Module):
    """Predicts the clean latent of the next frame."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        t = config.transformer
        self.config = config
        self.patch = t.patch
        self.rows, self.columns = (side // t.patch for side in config.latent_size)
        self.width, self.heads, self.head_dim, self.depth = t.width, t.width // t.head_dim, t.head_dim, t.depth
        channels, tokens = config.autoencoder.latent_channels, self.rows * self.columns
        self.rays_in_attention = t.geometry == "rays"
        self.pack = TrajectoryPacking(config.packing, channels, config.latent_size, t.width, config.vertical_fov)
        self.code = RayCode(t.head_dim // 2, t.geometry)
        self.relative = nn.Sequential(nn.Linear(_FEATURES, 128), nn.SiLU(), nn.Linear(128, t.width))
        self.context_mlp = nn.Sequential(nn.LayerNorm(t.width), nn.Linear(t.width, 2 * t.width), nn.GELU(), nn.Linear(2 * t.width, t.width))
        self.context_norm = nn.LayerNorm(t.width)
        self.depth_head = nn.Linear(t.width, self.heads)
        self.keys, self.values = nn.Linear(t.width, t.depth * t.width), nn.Linear(t.width, t.depth * t.width)
        self.embed = nn.Linear(channels * t.patch**2, t.width)
        self.position = nn.Parameter(torch.randn(tokens, t.width) * 0.02)
        if not self.rays_in_attention:
            self.context_position = nn.Parameter(torch.randn(len(self.pack.rays), t.width) * 0.02)
        self.time_mlp = nn.Sequential(nn.Linear(128, t.width), nn.SiLU(), nn.Linear(t.width, t.width))
        self.motion_mlp = nn.Sequential(nn.Linear(ACTION_DIM + 4, t.width), nn.SiLU(), nn.Linear(t.width, t.width))
        self.blocks = nn.ModuleList(Block(t.width, t.head_dim, t.mlp_ratio) for _ in range(t.depth))
        self.final_modulation = nn.Linear(t.width, 2 * t.width)
        self.out = nn.Linear(t.width, channels * t.patch**2)
        for layer in (self.depth_head, self.final_modulation, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():  # heads start at depths from far (pure direction) to near, in blocks
            self.depth_head.bias.copy_(torch.linspace(math.log(100.0), math.log(4.0), self.heads))
        rays = camera_rays(self.rows, self.columns, config.vertical_fov, config.frame_size[1] / config.frame_size[0])
        self.register_buffer("target_rays", torch.from_numpy(rays).float().reshape(-1, 3), persistent=False)
        self.target_rays: torch.Tensor

    def prepare(self, context: Context, query: torch.Tensor) -> PackedContext:
        """Packs a context for predicting the frame at pose ``query (B, 5)``."""
        of = self.pack.frame_of_token
        poses = context.poses
        offset = (poses[..., :3] - query[:, None, :3]).float()  # (B, F, 3) blocks; in float64 up to here
        ages = context.ages.float().clamp_min(1.0)
        token_poses, token_offset, token_age = poses.float()[:, of], offset[:, of], ages[:, of]
        directions = world_rays_torch(self.pack.rays, token_poses)  # (B, S, 3)
        features = self._features(token_offset, directions, token_poses, query.float(), token_age, context.imagined[:, of])
        tokens = self.pack(context.latents) + self.relative(features)
        if not self.rays_in_attention:
            tokens = tokens + self.context_position
        tokens = self.context_norm(tokens + self.context_mlp(tokens))

        def layers(y: torch.Tensor) -> torch.Tensor:  # -> (L, B, H, S, head_dim)
            return y.reshape(*tokens.shape[:2], self.depth, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)

        distance = self.depth_head(tokens).clamp(-1.5, 6.5).exp()[..., None]  # (B, S, H, 1) blocks
        seen = token_offset[:, :, None] + distance * directions[:, :, None]  # (B, S, H, 3) from the target's eye
        turn = Turn(*(part.transpose(1, 2) for part in self.code(seen, token_age[:, :, None].expand(seen.shape[:-1]))))  # (B, H, S, P)
        # unbound, not indexed, later: the gradient of an index is a tensor of zeros as large as all layers
        keys = rotate(_unit(layers(self.keys(tokens))), turn).unbind()
        values = rotate(layers(self.values(tokens)), turn).unbind()
        rays = world_rays_torch(self.target_rays, query.float()[:, None])  # (B, N, 3)
        return PackedContext(
            keys=keys,
            values=values,
            mask=context.used[:, of][:, None, None],
            turn=Turn(*(part[:, None].to(keys[0].dtype) for part in self.code(rays, rays.new_zeros(rays.shape[:-1])))),
        )

    def _features(
        self,
        offset: torch.Tensor,
        directions: torch.Tensor,
        poses: torch.Tensor,
        query: torch.Tensor,
        ages: torch.Tensor,
        imagined: torch.Tensor,
    ) -> torch.Tensor:
        """Relative pose, ray and age of every context token ``(B, S, 18)``; all offsets in the target's yaw frame."""
        yaw = query[:, None, 3]
        local = to_local_torch(offset, yaw.expand(offset.shape[:2]))
        along = (offset * directions).sum(-1, keepdim=True)
        ray = to_local_torch(directions, yaw.expand(offset.shape[:2]))
        turn = torch.deg2rad(poses[..., 3] - yaw)
        distance = offset.norm(dim=-1, keepdim=True)
        if not self.rays_in_attention:
            ray, along = torch.zeros_like(ray), torch.zeros_like(along)
        parts = [
            torch.asinh(local),
            (local / 8).clamp(-4, 4),
            torch.asinh(along),
            torch.log1p(distance),
            ray,
            turn.sin()[..., None],
            turn.cos()[..., None],
            (poses[..., 4:5] / 45),
            (query[:, None, 4:5] / 45).expand_as(distance),
            torch.log1p(ages)[..., None],
            1 / ages.clamp_min(1)[..., None],
            imagined.float()[..., None],
        ]
        return torch.cat(parts, dim=-1)

    def forward(self, noisy: torch.Tensor, level: torch.Tensor, actions: torch.Tensor, motion: torch.Tensor, context: PackedContext) -> torch.Tensor:
        """Predicts the clean latent.

        Args:
            noisy: ``(B, C, h, w)`` latent at noise level ``level``.
            level: ``(B,)`` in [0, 1]; 1 is pure noise.
            actions: ``(B, 9)`` actions in the project's units.
            motion: ``(B, 4)`` realised (right, up, forward) in blocks and the target's pitch in degrees.
            context: from :meth:`prepare`.

        Returns:
            ``(B, C, h, w)``.
        """
        squares = F.pixel_unshuffle(noisy, self.patch)
        x = self.embed(squares.flatten(2).transpose(1, 2)) + self.position
        frequencies = torch.exp(torch.arange(64, device=level.device) * (-math.log(1000.0) / 63)) * 1000.0
        angles = level[:, None] * frequencies
        scale = actions.new_tensor([1.0] * 7 + [1 / 45, 1 / 45])
        moved = motion * motion.new_tensor([1.0, 1.0, 1.0, 1 / 45])
        condition = self.time_mlp(torch.cat([angles.sin(), angles.cos()], dim=-1))
        condition = F.silu(condition + self.motion_mlp(torch.cat([actions * scale, moved], dim=-1)))
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            x = block(x, block.modulation(condition), context, layer)
        shift, factor = self.final_modulation(condition)[:, None].chunk(2, dim=-1)
        clean: torch.Tensor = self.out(_modulate(x, shift, factor))
        return F.pixel_shuffle(clean.transpose(1, 2).reshape(squares.shape), self.patch)
