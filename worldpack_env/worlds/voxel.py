"""The embedded world: seeded block terrain, Minecraft's movement constants, a ray-cast picture. Needs nothing but numba.

Movement follows vanilla Minecraft tick by tick (Minecraft wiki, "Player", "Transportation" and "Entity": drag, gravity, jump, friction), so
a real engine can check it. The step height of 0.6 is left out on purpose: this world has full blocks only, so it would never help.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from worldpack_env.worlds import Surface, WorldView, raycast
from worldpack_env.worlds.paths import find_spawn
from worldpack_env.worlds.sight import block_in_sight
from worldpack_env.worlds.terrain import (
    AIR,
    BLOCK_KINDS,
    BLOCK_NAMES,
    MARGIN,
    ORIGIN,
    PAD_Y,
    PAD_Z,
    SIZE_X,
    SIZE_Y,
    SIZE_Z,
    WATER,
    Terrain,
    load_terrain,
)
from worldpack_model.geometry import (
    ACTION_DIM,
    DPITCH,
    DYAW,
    EYE_HEIGHT,
    POSE_DIM,
    TICKS_PER_STEP,
    check_action,
    check_pose,
    wrap_degrees,
)
from worldpack_model.walking import (
    AIR_ACCELERATION,
    AIR_DRAG,
    GRAVITY,
    GROUND_ACCELERATION,
    HEIGHT,
    INPUT_SCALE,
    JUMP_COOLDOWN,
    JUMP_VELOCITY,
    NEGLIGIBLE,
    SLIPPERINESS,
    SPRINT,
    VERTICAL_DRAG,
    WIDTH,
)

SNEAK: Final = 0.3
WATER_DRAG: Final = 0.8
WATER_GRAVITY: Final = 0.02
SWIM_UP: Final = 0.04
CLIMB_OUT: Final = 0.3
"""Upward velocity in water against a wall that a swimmer can climb."""

_GAP: Final = 1e-7
_X, _Y, _Z, _VX, _VY, _VZ, _GROUND, _COOLDOWN = range(8)


@njit(cache=True, error_model="numpy")
def _solid(blocks: NDArray[np.uint8], x: int, y: int, z: int) -> bool:
    """True where the player cannot be: a block that is neither air nor water, the margin, below the world."""
    if x < MARGIN or x >= SIZE_X - MARGIN or z < MARGIN or z >= SIZE_Z - MARGIN or y < 0:
        return True
    if y >= SIZE_Y:
        return False
    b = blocks[x, y, z]
    solid: bool = b != AIR and b != WATER
    return solid


@njit(cache=True, error_model="numpy")
def _solid_box(blocks: NDArray[np.uint8], x: int, y: int, z: int, nx: int, ny: int, nz: int) -> NDArray[np.bool_]:
    """:func:`_solid` for ``(nx, ny, nz)`` cells from (x, y, z) on."""
    box = np.empty((nx, ny, nz), np.bool_)
    for i in range(nx):
        for j in range(ny):
            for k in range(nz):
                box[i, j, k] = _solid(blocks, x + i, y + j, z + k)
    return box


@njit(cache=True, error_model="numpy")
def _overlaps(blocks: NDArray[np.uint8], x: float, y: float, z: float) -> bool:
    """True when the player's box with feet at (x, y, z) in grid units cuts a solid cell."""
    h = 0.5 * WIDTH - _GAP
    for i in range(int(math.floor(x - h)), int(math.floor(x + h)) + 1):
        for j in range(int(math.floor(y + _GAP)), int(math.floor(y + HEIGHT - _GAP)) + 1):
            for k in range(int(math.floor(z - h)), int(math.floor(z + h)) + 1):
                if _solid(blocks, i, j, k):
                    return True
    return False


@njit(cache=True, error_model="numpy")
def _in_water(blocks: NDArray[np.uint8], x: float, y: float, z: float, low: float, high: float) -> bool:
    """True when the player's box between ``low`` and ``high`` above the feet touches water."""
    h = 0.5 * WIDTH - 0.001
    for i in range(max(int(math.floor(x - h)), 0), min(int(math.floor(x + h)), SIZE_X - 1) + 1):
        for j in range(max(int(math.floor(y + low)), 0), min(int(math.floor(y + high)), SIZE_Y - 1) + 1):
            for k in range(max(int(math.floor(z - h)), 0), min(int(math.floor(z + h)), SIZE_Z - 1) + 1):
                if blocks[i, j, k] == WATER:
                    return True
    return False


@njit(cache=True, error_model="numpy")
def _sweep(blocks: NDArray[np.uint8], x: float, y: float, z: float, axis: int, d: float) -> float:
    """How far of ``d`` blocks the player's box moves along ``axis`` (0 x, 1 y, 2 z) before it touches a solid cell."""
    if d == 0.0:
        return 0.0
    h = 0.5 * WIDTH
    low_x, high_x = int(math.floor(x - h + _GAP)), int(math.floor(x + h - _GAP))
    low_y, high_y = int(math.floor(y + _GAP)), int(math.floor(y + HEIGHT - _GAP))
    low_z, high_z = int(math.floor(z - h + _GAP)), int(math.floor(z + h - _GAP))
    near, far = (x - h, x + h) if axis == 0 else (y, y + HEIGHT) if axis == 1 else (z - h, z + h)
    if d > 0.0:
        cell, last, way = int(math.floor(far - _GAP)) + 1, int(math.floor(far + d - _GAP)), 1
    else:
        cell, last, way = int(math.floor(near + _GAP)) - 1, int(math.floor(near + d + _GAP)), -1
    while (cell - last) * way <= 0:
        if axis == 0:
            low_x, high_x = cell, cell
        elif axis == 1:
            low_y, high_y = cell, cell
        else:
            low_z, high_z = cell, cell
        for i in range(low_x, high_x + 1):
            for j in range(low_y, high_y + 1):
                for k in range(low_z, high_z + 1):
                    if _solid(blocks, i, j, k):
                        return max(cell - far, 0.0) if way > 0 else min(cell + 1 - near, 0.0)
        cell += way
    return d


@njit(cache=True, error_model="numpy")
def _tick(blocks: NDArray[np.uint8], state: NDArray[np.float64], keys: NDArray[np.float64], sin: float, cos: float) -> bool:
    """One game tick of ``state`` (x, y, z in grid units, velocity, on ground, jump cooldown); True when a wall stopped a held walk."""
    forward = keys[0] - keys[1]
    strafe = keys[3] - keys[2]  # to the right
    jump, sneak = keys[4] > 0.0, keys[5] > 0.0
    sprint = keys[6] > 0.0 and forward > 0.0 and not sneak
    walking = forward != 0.0 or strafe != 0.0
    for n in range(_VX, _VZ + 1):
        if abs(state[n]) < NEGLIGIBLE:
            state[n] = 0.0
    wet = _in_water(blocks, state[_X], state[_Y], state[_Z], 0.4, HEIGHT - 0.4)
    ground = state[_GROUND] > 0.0
    if state[_COOLDOWN] > 0.0:
        state[_COOLDOWN] -= 1.0
    if jump:
        if wet:
            state[_VY] += SWIM_UP
        elif ground and state[_COOLDOWN] == 0.0:
            state[_VY] = JUMP_VELOCITY
            state[_COOLDOWN] = JUMP_COOLDOWN
            if sprint:
                state[_VX] -= 0.2 * sin
                state[_VZ] += 0.2 * cos
    else:
        state[_COOLDOWN] = 0.0
    forward *= INPUT_SCALE * (SNEAK if sneak else 1.0)
    strafe *= INPUT_SCALE * (SNEAK if sneak else 1.0)
    if wet:
        push, drag = AIR_ACCELERATION, WATER_DRAG
    elif ground:
        push, drag = GROUND_ACCELERATION * (SPRINT if sprint else 1.0), SLIPPERINESS * AIR_DRAG
    else:
        push, drag = AIR_ACCELERATION * (SPRINT if sprint else 1.0), AIR_DRAG
    push /= max(math.sqrt(forward * forward + strafe * strafe), 1.0)
    state[_VX] += push * (-forward * sin - strafe * cos)
    state[_VZ] += push * (forward * cos - strafe * sin)
    dx, dy, dz = state[_VX], state[_VY], state[_VZ]
    if sneak and ground:
        # A sneaking player does not walk off an edge.
        while dx != 0.0 and _sweep(blocks, state[_X] + dx, state[_Y], state[_Z], 1, -1.0) == -1.0:
            dx = 0.0 if abs(dx) <= 0.05 else dx - math.copysign(0.05, dx)
        while dz != 0.0 and _sweep(blocks, state[_X], state[_Y], state[_Z] + dz, 1, -1.0) == -1.0:
            dz = 0.0 if abs(dz) <= 0.05 else dz - math.copysign(0.05, dz)
        while dx != 0.0 and dz != 0.0 and _sweep(blocks, state[_X] + dx, state[_Y], state[_Z] + dz, 1, -1.0) == -1.0:
            dx = 0.0 if abs(dx) <= 0.05 else dx - math.copysign(0.05, dx)
            dz = 0.0 if abs(dz) <= 0.05 else dz - math.copysign(0.05, dz)
    before = state[_Y]
    my = _sweep(blocks, state[_X], state[_Y], state[_Z], 1, dy)
    state[_Y] += my
    # The larger horizontal part first, as the game does: a corner is passed on the side one walks along.
    first = 0 if abs(dx) >= abs(dz) else 2
    mx, mz = 0.0, 0.0
    for n in range(2):
        if (first == 0) == (n == 0):
            mx = _sweep(blocks, state[_X], state[_Y], state[_Z], 0, dx)
            state[_X] += mx
        else:
            mz = _sweep(blocks, state[_X], state[_Y], state[_Z], 2, dz)
            state[_Z] += mz
    hit_x, hit_y, hit_z = abs(mx - dx) > 1e-9, abs(my - dy) > 1e-9, abs(mz - dz) > 1e-9
    state[_GROUND] = 1.0 if hit_y and dy < 0.0 else 0.0
    if hit_x:
        state[_VX] = 0.0
    if hit_y:
        state[_VY] = 0.0
    if hit_z:
        state[_VZ] = 0.0
    if wet:
        state[_VY] = WATER_DRAG * state[_VY] - WATER_GRAVITY
        if hit_x or hit_z:
            x, y, z = state[_X] + state[_VX], before + state[_VY] + 0.6, state[_Z] + state[_VZ]
            if not _overlaps(blocks, x, y, z) and not _in_water(blocks, x, y, z, 0.0, HEIGHT):
                state[_VY] = CLIMB_OUT
    else:
        state[_VY] = VERTICAL_DRAG * (state[_VY] - GRAVITY)
    state[_VX] *= drag
    state[_VZ] *= drag
    blocked: bool = walking and (hit_x or hit_z)
    return blocked


@njit(cache=True, error_model="numpy")
def _ticks(blocks: NDArray[np.uint8], state: NDArray[np.float64], keys: NDArray[np.float64], sin: float, cos: float, count: int) -> bool:
    """``count`` ticks with the same keys; True when any of them was blocked."""
    blocked = False
    for _ in range(count):
        if _tick(blocks, state, keys, sin, cos):
            blocked = True
    return blocked


class VoxelWorld:
    """The embedded engine behind the :class:`~worldpack_env.worlds.World` protocol.

    Args:
        frame_size: (height, width) of its frames in pixels.
        ticks_per_step: game ticks of 50 ms that :meth:`step` holds its keys for.
        threads: how many draw a picture at the same time, which does not change it.

    Raises:
        ValueError: if a side of ``frame_size`` is out of range, or there is not at least one tick or thread.
    """

    name: str = "voxel"

    def __init__(self, frame_size: tuple[int, int] = (64, 64), ticks_per_step: int = TICKS_PER_STEP, threads: int = 1) -> None:
        if ticks_per_step < 1:
            raise ValueError(f"ticks_per_step is {ticks_per_step}, expected at least 1.")
        if threads < 1:
            raise ValueError(f"threads is {threads}, expected at least 1.")
        self.ticks_per_step, self.threads = ticks_per_step, threads
        self.frame_size: tuple[int, int] = raycast.check_size(frame_size)
        self._terrain: Terrain | None = None
        self._closed = False
        self._state = np.zeros(8, np.float64)
        self._yaw = 0.0
        self._pitch = 0.0

    def reset(self, seed: int, pose: ArrayLike | None = None) -> WorldView:
        """Builds (or reuses) world ``seed`` and stands the player at ``pose`` (5,), at rest; None takes :attr:`spawn`.

        A pose in the air is fine: the player falls from the first step on.

        Raises:
            RuntimeError: after :meth:`close`.
            ValueError: if the seed or the pose is malformed, or the player would stand inside a block or outside the world.
        """
        self._check_open()
        terrain = load_terrain(int(seed))
        start = find_spawn(terrain.surface) if pose is None else check_pose(pose)
        if start.shape != (POSE_DIM,):
            raise ValueError(f"pose has shape {start.shape}, expected (5,): x, y, z in blocks, yaw, pitch in degrees.")
        x, y, z = float(start[0]) - ORIGIN[0], float(start[1]), float(start[2]) - ORIGIN[1]
        if not (MARGIN <= x < SIZE_X - MARGIN and MARGIN <= z < SIZE_Z - MARGIN and 0.0 <= y < SIZE_Y + 64.0):
            low, high = ORIGIN[0] + MARGIN, ORIGIN[0] + SIZE_X - MARGIN
            raise ValueError(f"pose {start.tolist()} is outside the world: x and z must be in [{low}, {high}), y in [0, {SIZE_Y + 64}).")
        if _overlaps(terrain.blocks, x, y, z):
            raise ValueError(f"pose {start.tolist()} puts the player's body inside a block of world {seed}.")
        self._terrain = terrain
        self._state[:] = 0.0
        self._state[:3] = x, y, z
        self._state[_GROUND] = float(_sweep(terrain.blocks, x, y, z, 1, -0.001) > -0.001)
        self._yaw, self._pitch = float(start[3]), float(start[4])
        return self._view(False)

    def step(self, action: ArrayLike) -> WorldView:
        """Turns the camera by ``action`` (9,), then holds its keys for ``ticks_per_step`` ticks of 50 ms.

        Raises:
            RuntimeError: before :meth:`reset` or after :meth:`close`.
            ValueError: if the action is malformed.
        """
        terrain = self._ready()
        held = check_action(action)
        if held.shape != (ACTION_DIM,):
            raise ValueError(f"action has shape {held.shape}, expected ({ACTION_DIM},).")
        self._yaw = float(wrap_degrees(self._yaw + float(held[DYAW])))
        self._pitch = min(max(self._pitch + float(held[DPITCH]), -90.0), 90.0)
        yaw = math.radians(self._yaw)
        blocked = _ticks(terrain.blocks, self._state, (held[:DPITCH] > 0.5).astype(np.float64), math.sin(yaw), math.cos(yaw), self.ticks_per_step)
        return self._view(bool(blocked))

    @property
    def spawn(self) -> NDArray[np.float64]:
        """Default start pose ``(5,)`` of the world last reset to; the same for every instance with that seed."""
        return find_spawn(self._ready().surface)

    def exchange(self, cell: ArrayLike, block: int) -> None:
        """Puts another block in the place of one that is there, at ``cell (3,)`` in whole blocks; holds for this world alone, until its next reset.

        The ground keeps its shape, so what :meth:`surface` tells stays true.

        Raises:
            RuntimeError: before :meth:`reset` or after :meth:`close`.
            ValueError: if there is no block at ``cell``, or no such kind of block to put there.
        """
        terrain = self._ready()
        x, y, z = (int(v) for v in np.asarray(cell))
        i, k = x - ORIGIN[0], z - ORIGIN[1]
        if not (0 <= i < SIZE_X and 0 <= y < SIZE_Y and 0 <= k < SIZE_Z) or terrain.blocks[i, y, k] == AIR:
            raise ValueError(f"There is no block at {[x, y, z]} of world {terrain.seed} that another could take the place of.")
        if not AIR < block < BLOCK_KINDS:
            raise ValueError(f"block is {block}, expected a kind of block from {AIR + 1} to {BLOCK_KINDS - 1}.")
        blocks, cells = terrain.blocks.copy(), terrain.cells.copy()
        blocks[i, y, k] = cells[((i + 1) * PAD_Y + y + 1) * PAD_Z + k + 1] = block
        self._terrain = replace(terrain, blocks=blocks, cells=cells)

    def surface(self) -> Surface:
        """The walkable surface of the world last reset to; its arrays are read-only."""
        return self._ready().surface

    def solid(self, corner: ArrayLike, size: tuple[int, int, int]) -> NDArray[np.bool_]:
        """Which blocks ``size`` of a box from ``corner (3,)`` no body can enter, of the world last reset to; what is outside of it is solid."""
        x, y, z = (int(v) for v in np.asarray(corner))
        return _solid_box(self._ready().blocks, x - ORIGIN[0], y, z - ORIGIN[1], *size)

    def events(self) -> tuple[str, ...]:
        """The name of the block in the middle of the player's view, if it is within :data:`~worldpack_env.worlds.REACH`; else nothing."""
        blocks, (x, y, z) = self._ready().blocks, self._state[:3].tolist()
        cell = block_in_sight((x, y + EYE_HEIGHT, z), self._yaw, self._pitch, blocks, lambda kind: kind not in (AIR, WATER))
        return () if cell is None else (BLOCK_NAMES[blocks[cell]],)

    def render(self, pose: ArrayLike) -> NDArray[np.uint8]:
        """The ``(H, W, 3) uint8`` picture from any pose ``(5,)`` of the world last reset to; moves nothing."""
        return raycast.render(self._ready(), pose, self.frame_size)

    def first_hits(self, pose: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Depth in blocks and (block, face) id of each pixel ``(H, W)`` from ``pose``; see :func:`raycast.first_hits`."""
        return raycast.first_hits(self._ready(), pose, self.frame_size)

    def close(self) -> None:
        """Frees the engine; may be called twice."""
        self._closed = True
        self._terrain = None

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("This world is closed; make a new one.")

    def _ready(self) -> Terrain:
        self._check_open()
        if self._terrain is None:
            raise RuntimeError("Call reset() before step().")
        return self._terrain

    def _view(self, blocked: bool) -> WorldView:
        assert self._terrain is not None
        x, y, z = self._state[:3]
        pose = np.array([x + ORIGIN[0], y, z + ORIGIN[1], self._yaw, self._pitch])
        return WorldView(raycast.render(self._terrain, pose, self.frame_size, threads=self.threads), pose, blocked)
