"""Pose-based memory retrieval: which past frames the next one is predicted from (paper section 4.2).

Legend: B slots, N remembered frames, F frames of the context, P points probed in the view to predict, K frames to choose.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from worldpack_model.config import PackingConfig, RetrievalConfig
from worldpack_model.geometry import VERTICAL_FOV, camera_axes_torch, camera_rays

PREFILTER = 2
"""``coverage`` is worked out for so many times its candidates, those with the best scores; it costs more than the score."""


class Selection(NamedTuple):
    """The frames of a context, in the packing's order: level by level, recent frames before retrieved ones."""

    indices: torch.Tensor
    """``(B, F) int64`` into the remembered frames; 0 where unused."""
    used: torch.Tensor
    """``(B, F) bool``."""


class Footprints(NamedTuple):
    """Remembered positions around the body."""

    positions: torch.Tensor
    """``(B, K, 3)`` float64 in blocks."""
    imagined: torch.Tensor
    """``(B, K) bool``."""
    used: torch.Tensor
    """``(B, K) bool``."""


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


class Probes(NamedTuple):
    """Points in a camera's view, on a grid of its rays at some depths, since nobody knows yet what is there."""

    points: torch.Tensor
    """``(P, 3)`` float32 in the camera's frame, blocks."""
    depths: torch.Tensor
    """``(P,)`` their distances."""
    half_up: float
    """Tangent of half the vertical field of view."""
    half_right: float
    """Tangent of half the horizontal field of view."""


@functools.cache
def probes_of(grid: tuple[int, int], depths: tuple[float, ...], vertical_fov: float, aspect: float, device: torch.device) -> Probes:
    """Points on a ``grid`` of rows and columns at ``depths`` in blocks; ``vertical_fov`` in degrees, ``aspect`` is width / height."""
    rays = torch.from_numpy(camera_rays(*grid, vertical_fov, aspect)).float().reshape(-1, 3)
    far = torch.tensor(depths).repeat_interleave(len(rays))
    half_up = math.tan(math.radians(vertical_fov) / 2)
    return Probes((rays.repeat(len(depths), 1) * far[:, None]).to(device), far.to(device), half_up, half_up * aspect)


def coverage(query: torch.Tensor, poses: torch.Tensor, probes: Probes) -> torch.Tensor:
    """How well each remembered frame shows each of P points in the view to predict.

    A frame that has a point in its picture counts ``min(1, d / d_frame) (1 + cos) / 2``: the nearer the finer, and the more alike the direction
    the likelier it is the same face of the same thing (``d`` distances to the two eyes, ``cos`` between the two directions).

    Args:
        query: ``(B, 5)`` pose of the frame to predict.
        poses: ``(B, N, 5)`` remembered poses.
        probes: the points.

    Returns:
        ``(B, N, P)`` float32 in [0, 1].
    """
    points = probes.points @ camera_axes_torch(query)  # (B, P, 3) from the eye, world axes
    depths = probes.depths
    offset = (poses[..., :3] - query[:, None, :3]).float()  # (B, N, 3)
    batch, count = offset.shape[:2]
    axes = camera_axes_torch(poses)
    # right and up in halves of the picture, so that a point is in it where neither is more than ahead
    axes = axes / axes.new_tensor([probes.half_right, probes.half_up, 1.0])[:, None]
    seen = (axes.reshape(batch, 3 * count, 3) @ points.mT).reshape(batch, count, 3, -1)
    seen -= axes @ offset[..., None]  # (B, N, 3, P) in each frame's camera
    ahead = seen[:, :, 2]
    inside = (seen[:, :, :2].abs().amax(2) < ahead) & (ahead > 0.2)
    along = offset @ points.mT
    near = torch.rsqrt((depths.square() - 2 * along + offset.square().sum(-1, keepdim=True)).clamp_min(1e-2))  # 1 / d_frame
    cosine = (depths - along / depths) * near
    return inside * (depths * near).clamp(max=1.0) * (0.5 + 0.5 * cosine)


def known_cells(
    query: torch.Tensor,
    poses: torch.Tensor,
    config: RetrievalConfig,
    size: tuple[int, int],
    *,
    vertical_fov: float = VERTICAL_FOV,
    aspect: float = 1.0,
) -> torch.Tensor:
    """How far each cell of the view to predict can be known from some frames, if nothing hides it: :func:`coverage` by the best frame, over depths.

    Args:
        query: ``(B, 5)`` pose of the frame to predict.
        poses: ``(B, N, 5)`` poses of the frames; NaN where there is none.
        config: depths.
        size: rows h and columns w of the view.
        vertical_fov: degrees.
        aspect: picture width / height.

    Returns:
        ``(B, h, w)`` float32 in [0, 1].
    """
    shown = coverage(query, poses, probes_of(size, config.probe_depths, vertical_fov, aspect, query.device))
    best = shown.nan_to_num(0.0).amax(dim=1).reshape(len(query), len(config.probe_depths), *size)
    return best.mean(dim=1)


class Candidates(NamedTuple):
    """Frames among which ``coverage`` chooses."""

    poses: torch.Tensor
    """``(B, N, 5)``."""
    imagined: torch.Tensor
    """``(B, N) bool``."""
    there: torch.Tensor
    """``(B, N) bool`` False where there is no frame to take."""

    def padded(self, count: int) -> Candidates:
        """As many as ``count`` frames, with empty places at the end."""
        more = count - self.there.shape[1]
        pad = torch.nn.functional.pad
        return Candidates(pad(self.poses, (0, 0, 0, more)), pad(self.imagined, (0, more)), pad(self.there, (0, more)))


def take_by_coverage(
    query: torch.Tensor, among: Candidates, probes: Probes, config: RetrievalConfig, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Greedily takes ``count`` frames by what each adds to what is shown: ``(B, K)`` indices and whether used.

    Among frames that add nothing, those with the best :func:`log_score` come first.

    Args:
        query: ``(B, 5)`` pose of the frame to predict.
        among: of which frames.
        probes: points of the view.
        config: constants; ``candidates`` frames, those that show most by themselves, are looked at again in each round.
        count: K.
    """
    most, score = PREFILTER * config.candidates, log_score(query, among.poses, config)
    if score.shape[1] > most:
        best = score.masked_fill(~among.there, -torch.inf).topk(most, dim=1)
        gathered = best.indices[..., None].expand(-1, -1, 5)
        among = Candidates(among.poses.gather(1, gathered), among.imagined.gather(1, best.indices), among.there.gather(1, best.indices))
        taken, used = _take_by_coverage(query, among, score.gather(1, best.indices), probes, config, count)
        return best.indices.gather(1, taken * used), used
    return _take_by_coverage(query, among, score, probes, config, count)


def _take_by_coverage(
    query: torch.Tensor, among: Candidates, score: torch.Tensor, probes: Probes, config: RetrievalConfig, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """As :func:`take_by_coverage`, ``among`` all; ``score (B, N)`` is the log score."""
    shown = coverage(query, among.poses, probes)
    shown = torch.where(among.imagined[..., None], config.imagined_weight * shown, shown)
    tie = 1e-4 / (1.0 - score.float().clamp(max=0.0))
    alone = (shown.sum(-1) + tie).masked_fill(~among.there, -torch.inf)
    some = alone.topk(min(config.candidates, alone.shape[1]), dim=1)
    row = torch.arange(len(shown), device=shown.device)
    shown = shown[row[:, None], some.indices]
    tie = tie.gather(1, some.indices).masked_fill(some.values == -torch.inf, -torch.inf)
    there = (some.values > -torch.inf).sum(1)
    best, taken = shown.new_zeros(len(shown), 1, shown.shape[-1]), []
    for _ in range(min(count, shown.shape[1])):
        gain = (shown - best).clamp_min_(0).sum(-1)
        most = gain.add_(tie).argmax(1)
        tie[row, most] = -torch.inf
        best = torch.maximum(best, shown[row, most][:, None])
        taken.append(most)
    index = torch.zeros((len(shown), count), dtype=torch.int64, device=shown.device)
    index[:, : len(taken)] = some.indices.gather(1, torch.stack(taken, dim=1))
    return index, torch.arange(count, device=shown.device) < there[:, None]


def _take_by_score(score: torch.Tensor, steps: torch.Tensor, free: torch.Tensor, count: int, suppression: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Takes the ``count`` best scored frames with greedy non-maximum suppression in time: ``(B, K)`` indices and whether used."""
    score = score.masked_fill(~free, -torch.inf).float()
    index = torch.zeros((len(score), count), dtype=torch.int64, device=score.device)
    used = torch.zeros((len(score), count), dtype=torch.bool, device=score.device)
    for k in range(count):
        best, taken = score.max(dim=1)
        index[:, k], used[:, k] = taken, best > -torch.inf
        distance = (steps - steps.gather(1, taken[:, None])).abs()
        score = score.masked_fill(distance <= suppression, -torch.inf)
    return index, used


def select(
    packing: PackingConfig,
    config: RetrievalConfig,
    *,
    query: torch.Tensor,
    poses: torch.Tensor,
    steps: torch.Tensor,
    imagined: torch.Tensor,
    vertical_fov: float = VERTICAL_FOV,
    aspect: float = 1.0,
    take: Callable[..., tuple[torch.Tensor, torch.Tensor]] | None = None,
    room: int = 0,
) -> Selection:
    """Chooses the context of each slot: the newest frames, then of the rest those that the config's method prefers, best first.

    Args:
        packing: how many frames of each kind.
        config: constants of the score.
        query: ``(B, 5)`` pose of the frame to predict.
        poses: ``(B, N, 5)`` remembered poses, in any order.
        steps: ``(B, N) int64`` their step numbers, -1 where there is no frame; no number twice in a slot.
        imagined: ``(B, N) bool`` True for frames that the model imagined.
        vertical_fov: degrees; for ``coverage``.
        aspect: picture width / height; for ``coverage``.
        take: :func:`take_by_coverage`, compiled: what it is asked about has one of two sizes, one for few frames and one for many.
        room: N at most, for ``take``.
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
        free = (steps >= 0).scatter(1, order.indices, False)
        if config.method == "coverage":
            among, fewest = Candidates(poses, imagined, free), PREFILTER * config.candidates
            if take is not None:
                among = among.padded(fewest if count <= fewest else max(room, count))
            probes = probes_of(config.probe_grid, config.probe_depths, vertical_fov, aspect, device)
            chosen_index, chosen_used = (take or take_by_coverage)(query, among, probes, config, packing.retrieved)
        else:
            score = log_score(query, poses, config) - config.imagined_penalty * imagined
            chosen_index, chosen_used = _take_by_score(score, steps, free, packing.retrieved, config.suppression_steps)
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


FOOTPRINTS = 16
"""Remembered positions that the motion model is told."""


def footprints(packing: PackingConfig, *, query: torch.Tensor, poses: torch.Tensor, steps: torch.Tensor, imagined: torch.Tensor) -> Footprints:
    """The remembered positions nearest to where a body is going.

    A packing that retrieves nothing has no memory, so it is told those of its recent frames only.

    Args:
        packing: how many frames of each kind.
        query: ``(B, 5)`` pose that the body is going to.
        poses: ``(B, N, 5)`` remembered poses, in any order.
        steps: ``(B, N) int64`` their step numbers, -1 where there is no frame.
        imagined: ``(B, N) bool`` True for frames that the model imagined.
    """
    oldest = 0 if packing.retrieved else (steps.max(dim=1, keepdim=True).values - packing.recent + 1).clamp_min(0)
    x, y, z = (poses[..., :3] - query[:, None, :3]).square().unbind(-1)
    far = (x + y + z).masked_fill(steps < oldest, torch.inf)
    near = far.topk(min(FOOTPRINTS, far.shape[1]), dim=1, largest=False)
    used = near.values < torch.inf
    return Footprints(poses[..., :3].gather(1, near.indices[..., None].expand(-1, -1, 3)), imagined.gather(1, near.indices) & used, used)
