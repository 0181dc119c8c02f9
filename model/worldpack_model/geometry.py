"""Poses, rays and actions: the one statement of this project's conventions.

Every other file (engines, recorder, model, tasks) uses these and no others.

* **Pose** ``(x, y, z, yaw, pitch)``: feet position in blocks and two angles in degrees. Yaw 0 looks to +z and grows clockwise
  seen from above (90 looks to -x), as in Minecraft and MineRL; it is wrapped to [-180, 180). Positive pitch looks down, [-90, 90].
  The camera sits ``EYE_HEIGHT`` above the feet.
* **Alignment**: action ``t`` turns frame ``t`` and pose ``t`` into frame ``t + 1`` and pose ``t + 1``.
* **Action** ``(9,) float32``: seven held keys as 0/1 in the order of ``KEYS``, then the camera turn ``(dpitch, dyaw)`` in degrees per env step.
* **Step**: one env step is ``TICKS_PER_STEP`` game ticks of 50 ms.
* **Frames** ``(..., H, W, 3) uint8`` RGB outside the model.
* **Box**: the blocks around a body, ``BOX`` of them along x, y and z; its lowest corner is :func:`box_corner`.

Functions work on NumPy arrays and, where their name says so, on torch tensors. Directions are world vectors ``(x, y, z)`` with y up.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

EYE_HEIGHT: Final = 1.62
"""Height of the camera above the feet, in blocks (Minecraft's standing player)."""
VERTICAL_FOV: Final = 70.0
"""Minecraft's default vertical field of view in degrees."""
TICK_SECONDS: Final = 0.05
TICKS_PER_STEP: Final = 4
WALK_BLOCKS_PER_TICK: Final = 0.2159
"""Steady walking speed of a Minecraft player on flat ground, in blocks a tick."""
POSE_FIELDS: Final = ("x", "y", "z", "yaw", "pitch")
POSE_DIM: Final = 5
KEYS: Final = ("forward", "back", "left", "right", "jump", "sneak", "sprint")
ACTION_FIELDS: Final = (*KEYS, "dpitch", "dyaw")
ACTION_DIM: Final = 9
DPITCH: Final = 7
"""Index of the camera's pitch change in an action."""
DYAW: Final = 8
"""Index of the camera's yaw change in an action."""

BOX: Final = (5, 6, 5)
"""Blocks along x, y and z that a recording says of the surroundings of a body: two around its own column, from three below its feet to two above."""
FOOTING: Final = 0.25
"""Blocks; feet that are at most so far below the top of a block count as on it."""

Floats = NDArray[np.float64]


def wrap_degrees(angle: ArrayLike) -> Floats:
    """Wraps angles in degrees to [-180, 180)."""
    return (np.asarray(angle, dtype=np.float64) + 180.0) % 360.0 - 180.0


def wrap_degrees_torch(angle: torch.Tensor) -> torch.Tensor:
    """Wraps angles in degrees to [-180, 180)."""
    return torch.remainder(angle + 180.0, 360.0) - 180.0


def check_pose(pose: ArrayLike, name: str = "pose") -> Floats:
    """Returns ``pose`` as a new ``(..., 5) float64`` array with yaw wrapped.

    Raises:
        ValueError: if the last axis is not 5, a number is not finite, or the pitch is outside [-90, 90].
    """
    array = np.array(pose, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] != POSE_DIM:
        raise ValueError(f"{name} has shape {array.shape}, expected (..., 5): x, y, z in blocks, yaw, pitch in degrees.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds a number that is not finite: {array.tolist()}.")
    if (np.abs(array[..., 4]) > 90.0).any():
        raise ValueError(f"{name} has a pitch outside [-90, 90] degrees: {array[..., 4].tolist()}.")
    array[..., 3] = wrap_degrees(array[..., 3])
    return array


def check_action(action: ArrayLike, name: str = "action") -> NDArray[np.float32]:
    """Returns ``action`` as a ``(..., 9) float32`` array.

    Raises:
        ValueError: if the last axis is not 9 or a number is not finite.
    """
    array = np.asarray(action, dtype=np.float32)
    if array.ndim == 0 or array.shape[-1] != ACTION_DIM:
        raise ValueError(f"{name} has shape {array.shape}, expected (..., 9): {', '.join(ACTION_FIELDS)}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds a number that is not finite: {array.tolist()}.")
    return array


def box_corner(poses: ArrayLike) -> NDArray[np.int64]:
    """Lowest corner ``(..., 3)``, in blocks, of the box around bodies at ``poses (..., 5)``."""
    p = np.asarray(poses, np.float64)
    return np.floor(np.stack([p[..., 0] - 2, p[..., 1] + FOOTING - 3, p[..., 2] - 2], axis=-1)).astype(np.int64)


def forward_vector(yaw: ArrayLike, pitch: ArrayLike = 0.0) -> Floats:
    """Unit view direction ``(..., 3)`` of angles in degrees."""
    y, p = np.radians(np.asarray(yaw, np.float64)), np.radians(np.asarray(pitch, np.float64))
    y, p = np.broadcast_arrays(y, p)
    return np.stack([-np.sin(y) * np.cos(p), -np.sin(p), np.cos(y) * np.cos(p)], axis=-1)


def yaw_towards(origin: ArrayLike, target: ArrayLike) -> Floats:
    """Yaw in degrees that looks from ``origin (..., 3)`` to ``target (..., 3)``, both in blocks."""
    d = np.asarray(target, np.float64) - np.asarray(origin, np.float64)
    return wrap_degrees(np.degrees(np.arctan2(-d[..., 0], d[..., 2])))


def to_local(delta: ArrayLike, yaw: ArrayLike) -> Floats:
    """Turns world displacements ``(..., 3)`` into ``(right, up, forward)`` for a body that faces ``yaw`` degrees."""
    d, y = np.asarray(delta, np.float64), np.radians(np.asarray(yaw, np.float64))
    right = -d[..., 0] * np.cos(y) - d[..., 2] * np.sin(y)
    ahead = -d[..., 0] * np.sin(y) + d[..., 2] * np.cos(y)
    return np.stack([right, d[..., 1], ahead], axis=-1)


def to_local_torch(delta: torch.Tensor, yaw: torch.Tensor) -> torch.Tensor:
    """Torch twin of :func:`to_local`."""
    y = torch.deg2rad(yaw)
    right = -delta[..., 0] * torch.cos(y) - delta[..., 2] * torch.sin(y)
    ahead = -delta[..., 0] * torch.sin(y) + delta[..., 2] * torch.cos(y)
    return torch.stack([right, delta[..., 1], ahead], dim=-1)


def from_local(local: ArrayLike, yaw: ArrayLike) -> Floats:
    """Inverse of :func:`to_local`: ``(right, up, forward)`` in blocks to a world displacement ``(..., 3)``."""
    r, y = np.asarray(local, np.float64), np.radians(np.asarray(yaw, np.float64))
    x = -r[..., 0] * np.cos(y) - r[..., 2] * np.sin(y)
    z = -r[..., 0] * np.sin(y) + r[..., 2] * np.cos(y)
    return np.stack([x, r[..., 1], z], axis=-1)


def from_local_torch(local: torch.Tensor, yaw: torch.Tensor) -> torch.Tensor:
    """Torch twin of :func:`from_local`."""
    y = torch.deg2rad(yaw)
    x = -local[..., 0] * torch.cos(y) - local[..., 2] * torch.sin(y)
    z = -local[..., 0] * torch.sin(y) + local[..., 2] * torch.cos(y)
    return torch.stack([x, local[..., 1], z], dim=-1)


def camera_rays(rows: int, columns: int, vertical_fov: float = VERTICAL_FOV, aspect: float = 1.0) -> Floats:
    """Rays through the centres of a ``rows`` x ``columns`` grid over the picture, in the camera's frame.

    Args:
        rows: cells from top to bottom.
        columns: cells from left to right.
        vertical_fov: degrees between the picture's top and bottom edge.
        aspect: picture width / height.

    Returns:
        ``(rows, columns, 3)`` unit vectors ``(right, up, forward)``.
    """
    return rays_through((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, vertical_fov, aspect)


def rays_through(down: ArrayLike, right: ArrayLike, vertical_fov: float = VERTICAL_FOV, aspect: float = 1.0) -> Floats:
    """Rays through points of the picture, in the camera's frame.

    Args:
        down: ``(R,)`` places between the picture's top (0) and bottom (1).
        right: ``(C,)`` places between its left (0) and right (1) edge.
        vertical_fov: degrees between the picture's top and bottom edge.
        aspect: picture width / height.

    Returns:
        ``(R, C, 3)`` unit vectors ``(right, up, forward)``.
    """
    half = np.tan(np.radians(vertical_fov) / 2.0)
    up = half * (1.0 - 2.0 * np.asarray(down, np.float64))[:, None]
    side = half * aspect * (2.0 * np.asarray(right, np.float64) - 1.0)[None, :]
    rays = np.stack(np.broadcast_arrays(side, up, np.ones((1, 1))), axis=-1)
    unit: Floats = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    return unit


def world_rays_torch(rays: torch.Tensor, poses: torch.Tensor) -> torch.Tensor:
    """Turns camera rays into world directions.

    Args:
        rays: ``(..., 3)`` vectors ``(right, up, forward)`` in the camera's frame.
        poses: ``(..., 5)`` poses; broadcast against ``rays``.

    Returns:
        ``(..., 3)`` world directions of the same lengths.
    """
    pitch = torch.deg2rad(poses[..., 4])
    right, up, ahead = rays.unbind(-1)
    level = ahead * torch.cos(pitch) + up * torch.sin(pitch)
    raised = up * torch.cos(pitch) - ahead * torch.sin(pitch)
    return from_local_torch(torch.stack([right.expand_as(level), raised, level], dim=-1), poses[..., 3])


def camera_axes_torch(poses: torch.Tensor) -> torch.Tensor:
    """World directions of a camera's right, up and forward, as rows.

    Args:
        poses: ``(..., 5)``.

    Returns:
        ``(..., 3, 3)`` float32: a vector in the camera's frame times this is the world's; this times the world's is the camera's.
    """
    angles = torch.deg2rad(poses[..., 3:]).float()
    (sin_yaw, sin_pitch), (cos_yaw, cos_pitch) = angles.sin().unbind(-1), angles.cos().unbind(-1)
    none = torch.zeros_like(sin_yaw)
    rows = [-cos_yaw, none, -sin_yaw, -sin_yaw * sin_pitch, cos_pitch, cos_yaw * sin_pitch, -sin_yaw * cos_pitch, -sin_pitch, cos_yaw * cos_pitch]
    return torch.stack(rows, dim=-1).reshape(*poses.shape[:-1], 3, 3)


def loopnav_to_pose(record: dict[str, Any]) -> Floats:
    """Pose ``(5,)`` of a LoopNav record, whose yaw and pitch are mineflayer radians (forward is ``(-sin yaw, -cos yaw)`` in (x, z))."""
    yaw = wrap_degrees(180.0 - np.degrees(float(record["yaw"])))
    pitch = float(np.clip(-np.degrees(float(record["pitch"])), -90.0, 90.0))
    return np.array([float(record["x"]), float(record["y"]), float(record["z"]), float(yaw), pitch])


def pose_to_loopnav(pose: ArrayLike) -> dict[str, float]:
    """The five pose fields of a LoopNav record, in its units (blocks and mineflayer radians)."""
    x, y, z, yaw, pitch = (float(v) for v in np.asarray(pose, np.float64))
    return {"x": x, "y": y, "z": z, "yaw": float(np.radians(180.0 - yaw)), "pitch": float(np.radians(-pitch))}


def camera_to_loopnav(dpitch: float, dyaw: float) -> list[float]:
    """LoopNav's ``camera`` entry ``[dyaw, dpitch]`` in mineflayer radians, of a turn in our degrees."""
    return [float(np.radians(-dyaw)), float(np.radians(-dpitch))]


def camera_from_loopnav(camera: ArrayLike) -> tuple[float, float]:
    """Our ``(dpitch, dyaw)`` in degrees, of LoopNav's ``camera`` entry ``[dyaw, dpitch]`` in mineflayer radians."""
    dyaw, dpitch = (float(v) for v in np.asarray(camera, np.float64))
    return -float(np.degrees(dpitch)), -float(np.degrees(dyaw))
