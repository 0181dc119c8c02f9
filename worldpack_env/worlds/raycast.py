"""Pictures of a block grid by ray casting in numba: one ray a pixel, four more where neighbours differ.

The grid walk is Amanatides & Woo, "A Fast Voxel Traversal Algorithm" (1987). Three things spare most of its steps: every ray starts at the wall
of an empty box about the eye, rays above everything in their bearing are sky at once, and tiles of columns that end below a ray are jumped
over. Nothing here is timed or random, threads share nothing they write, and floating-point reordering is off, so a pose gives the same bytes every
time.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from worldpack_env.worlds import terrain as _t
from worldpack_env.worlds.terrain import AIR, FINE, OPEN, ORIGIN, OUTSIDE, PAD_Y, PAD_Z, SIZE_X, SIZE_Y, SIZE_Z, TILE, WATER, Terrain
from worldpack_model.geometry import EYE_HEIGHT, POSE_DIM, VERTICAL_FOV, check_pose

VIEW_DISTANCE: Final = 64.0
"""Blocks after which fog hides everything."""
MIN_SIDE: Final = 8
MAX_SIDE: Final = 2160

_WATER_VIEW: Final = 14.0
_FOG_START: Final = 18.0
_TEXTURES: Final = 3 * _t.BLOCK_KINDS
_TEXELS: Final = 16 * 16 + 8 * 8 + 4 * 4 + 2 * 2 + 1
_HORIZON: Final = (198.0, 224.0, 250.0)
_ZENITH: Final = (84.0, 148.0, 242.0)
_WATER_FOG: Final = (26.0, 66.0, 150.0)
_UNIT: Final = float(2**40)
"""Parts of a block in which the grid walk counts distances."""
_BATCH: Final = 1024
_ROOM: Final = 16
"""Largest reach of the empty box about the eye, in blocks."""
_BEARINGS: Final = 256
"""Sectors of the horizon; a power of two."""
_LOG2: Final = np.log2(1.0 + np.arange(4097) / 4096.0)
# Of the six faces -x, +x, -y, +y, -z, +z: brightness, where the face's texture (top, side, bottom) begins in its block's, normal.
_BRIGHTNESS: Final = np.multiply.outer([0.6, 0.6, 0.5, 1.0, 0.8, 0.8], [1.0, 0.78]).reshape(-1)
"""2 * face: without anything above; 2 * face + 1: with."""
_FACE_TEXELS: Final = _TEXELS * np.array([1, 1, 2, 0, 1, 1])
_FACE_X: Final = np.array([-1, 1, 0, 0, 0, 0])
_FACE_Y: Final = np.array([0, 0, -1, 1, 0, 0])
_FACE_Z: Final = np.array([0, 0, 0, 0, -1, 1])
_OFFSET_I: Final = np.array([0.375, 0.125, -0.125, -0.375])
_OFFSET_J: Final = np.array([-0.125, 0.375, -0.375, 0.125])
_EDGE: Final = 30.0
"""Sum of channel differences between neighbouring pixels from which both get more rays."""


def _make_textures() -> NDArray[np.float32]:
    """Paints the ``(3 * kinds, texels, 3)`` mip-mapped textures (top, side, bottom of each block kind), 16 x 16 down to 1 x 1."""
    rng = np.random.Generator(np.random.PCG64(2026))
    rows, columns = np.mgrid[0:16, 0:16]

    def speckle(colour: ArrayLike, contrast: float) -> NDArray[np.float64]:
        fine, coarse = rng.standard_normal((16, 16)), np.kron(rng.standard_normal((4, 4)), np.ones((4, 4)))
        pattern = 0.6 * fine + 0.8 * coarse
        pattern -= pattern.mean()
        return np.asarray(colour, np.float64) * (1.0 + contrast * pattern[..., None])

    def paint(colour: ArrayLike, contrast: float, dark: NDArray[np.bool_], depth: float = 0.75) -> NDArray[np.float64]:
        return speckle(colour, contrast) * np.where(dark, depth, 1.0)[..., None]

    bark = np.broadcast_to(rng.random(16)[None, :] < 0.35, (16, 16))
    rings = np.isin(np.maximum(abs(rows - 7.5), abs(columns - 7.5)).astype(int), (1, 4, 7))
    joints = (rows % 4 == 3) | ((columns + 8 * (rows // 4 % 2)) % 16 == 0)
    bricks = (rows % 4 == 3) | ((columns + 4 * (rows // 4 % 2)) % 8 == 0)
    frame = (rows == 0) | (columns == 0) | (rows == 15) | (columns == 15)
    cobbles = (rows % 8 == 7) | ((columns + 4 * (rows // 8 % 2)) % 8 == 7)
    spots = rng.random((16, 16)) < 0.22
    ribs = np.broadcast_to(columns % 5 == 2, (16, 16))
    waves = np.sin((columns + 2.0 * np.sin(rows * math.pi / 4.0)) * math.pi / 4.0) > 0.55

    dirt = (136, 98, 66)

    def turf(colour: ArrayLike) -> NDArray[np.float64]:
        side = speckle(dirt, 0.06)
        depth = 3 + (rng.random(16) < 0.5) + (rng.random(16) < 0.3)
        grass = speckle(colour, 0.05)
        return np.where((rows < depth[None, :])[..., None], grass, side)

    plain: dict[int, tuple[tuple[int, int, int], float]] = {
        _t.STONE: ((130, 130, 136), 0.05),
        _t.DIRT: (dirt, 0.06),
        _t.SAND: ((226, 208, 148), 0.03),
        _t.GRAVEL: ((158, 146, 134), 0.07),
    }
    greens = {_t.GRASS: (104, 178, 62), _t.SNOW: (224, 232, 242), _t.DRY_GRASS: (190, 176, 76)}
    logs = {_t.OAK_LOG: (112, 84, 50), _t.SPRUCE_LOG: (74, 50, 34), _t.ACACIA_LOG: (158, 92, 62)}
    leaves = {_t.OAK_LEAVES: (58, 132, 40), _t.SPRUCE_LEAVES: (36, 92, 70), _t.ACACIA_LEAVES: (126, 150, 40), _t.PINK_LEAVES: (238, 150, 192)}
    paints = (
        (206, 44, 40), (240, 130, 28), (248, 212, 44), (122, 206, 36), (28, 186, 190),
        (48, 74, 200), (126, 52, 180), (212, 62, 178), (240, 240, 240), (38, 38, 46),
    )  # fmt: skip
    faces: dict[int, tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]] = {}
    for kind, (colour, contrast) in plain.items():
        faces[kind] = (speckle(colour, contrast), speckle(colour, contrast), speckle(colour, contrast))
    for kind, colour in greens.items():
        faces[kind] = (speckle(colour, 0.02 if kind == _t.SNOW else 0.06), turf(colour), speckle(dirt, 0.06))
    for kind, colour in logs.items():
        end = paint(np.minimum(np.array(colour) * 1.5, 255.0), 0.04, rings, 0.8)
        faces[kind] = (end, paint(colour, 0.05, bark, 0.78), end)
    for kind, colour in leaves.items():
        leaf = paint(colour, 0.07, spots, 0.72)
        faces[kind] = (leaf, leaf, leaf)
    bands = np.where((rows // 4) % 2 == 0, 1.0, 0.9)[..., None]
    mesa = (198, 104, 58)
    faces[_t.TERRACOTTA] = (speckle(mesa, 0.04), speckle(mesa, 0.03) * bands, speckle(mesa, 0.04))
    water = paint((52, 110, 220), 0.02, waves, 1.12)
    faces[_t.WATER] = (water, water, water)
    cactus = paint((66, 142, 58), 0.04, ribs, 0.7)
    faces[_t.CACTUS] = (speckle((96, 170, 80), 0.05), cactus, cactus)
    planks = paint((184, 144, 88), 0.03, joints, 0.75)
    faces[_t.PLANKS] = (planks, planks, planks)
    brick = np.where(bricks[..., None], speckle((190, 176, 166), 0.03), speckle((166, 84, 68), 0.06))
    faces[_t.BRICK] = (brick, brick, brick)
    cobble = paint((124, 124, 124), 0.09, cobbles, 0.72)
    faces[_t.COBBLE] = (cobble, cobble, cobble)
    for n, colour in enumerate(paints):
        block = paint(colour, 0.03, frame, 0.82)
        faces[_t.PAINT + n] = (block, block, block)

    textures = np.zeros((_TEXTURES, _TEXELS, 3), np.float32)
    for kind, triple in faces.items():
        for side, texture in enumerate(triple):
            level, first = np.clip(texture, 0.0, 255.0), 0
            for width in (16, 8, 4, 2, 1):
                textures[3 * kind + side, first : first + width * width] = level.reshape(-1, 3)
                first += width * width
                if width > 1:
                    level = level.reshape(width // 2, 2, width // 2, 2, 3).mean(axis=(1, 3))
    textures.flags.writeable = False
    return textures


TEXTURES: Final = _make_textures()
_FLAT_TEXTURES: Final = TEXTURES.reshape(-1)


@njit(cache=True, error_model="numpy")
def _aim(basis: NDArray[np.float64], count: int, rays: NDArray[np.float64]) -> None:
    """Turns points on the picture into rays.

    Rows 0-1 of ``rays (8, n)`` are the points as (right, up) tangents; rows 2-4 become the unit directions (x, y, z), rows 5-7 their inverses.
    """
    for n in range(count):
        right, up = rays[0, n], rays[1, n]
        scale = 1.0 / math.sqrt(1.0 + up * up + right * right)
        dx = (basis[0, 0] * right + basis[1, 0] * up + basis[2, 0]) * scale
        dy = (basis[0, 1] * right + basis[1, 1] * up + basis[2, 1]) * scale
        dz = (basis[0, 2] * right + basis[1, 2] * up + basis[2, 2]) * scale
        rays[2, n], rays[3, n], rays[4, n] = dx, dy, dz
        # A ray along an axis would divide by zero; a millionth of a radian is far less than a pixel.
        rays[5, n] = 1.0 / (dx if abs(dx) > 1e-6 else 1e-6 if dx >= 0.0 else -1e-6)
        rays[6, n] = 1.0 / (dy if abs(dy) > 1e-6 else 1e-6 if dy >= 0.0 else -1e-6)
        rays[7, n] = 1.0 / (dz if abs(dz) > 1e-6 else 1e-6 if dz >= 0.0 else -1e-6)


@njit(cache=True, error_model="numpy")
def _empty(cells: NDArray[np.uint8], x0: int, x1: int, y0: int, y1: int, z0: int, z1: int) -> bool:
    """True when all cells of [x0, x1) x [y0, y1) x [z0, z1) are air; the layer about the grid is not."""
    for x in range(x0, x1):
        for y in range(y0, y1):
            for z in range(z0, z1):
                c = cells[((x + 1) * PAD_Y + y + 1) * PAD_Z + z + 1]
                if c != AIR and c != OPEN:
                    return False
    return True


@njit(cache=True, error_model="numpy")
def _room(cells: NDArray[np.uint8], eye: NDArray[np.float64], box: NDArray[np.int64]) -> bool:
    """Grows an empty box (x0, x1, y0, y1, z0, z1) about the cell of the eye: every ray of a picture can start at its walls.

    Returns:
        True when the eye is in water.
    """
    x, y, z = int(math.floor(eye[0])), int(math.floor(eye[1])), int(math.floor(eye[2]))
    box[0], box[1], box[2], box[3], box[4], box[5] = x, x + 1, y, y + 1, z, z + 1
    if not (0 <= x < SIZE_X and 0 <= y < SIZE_Y and 0 <= z < SIZE_Z):
        return False
    if not _empty(cells, x, x + 1, y, y + 1, z, z + 1):
        return bool(cells[((x + 1) * PAD_Y + y + 1) * PAD_Z + z + 1] == WATER)
    # Down to the floor first: the rays that look down are the most.
    while _empty(cells, x, x + 1, box[2] - 1, box[2], z, z + 1):
        box[2] -= 1
    growing = True
    while growing:
        growing = False
        if box[1] - x < _ROOM and _empty(cells, box[1], box[1] + 1, box[2], box[3], box[4], box[5]):
            box[1] += 1
            growing = True
        if x - box[0] < _ROOM and _empty(cells, box[0] - 1, box[0], box[2], box[3], box[4], box[5]):
            box[0] -= 1
            growing = True
        if box[5] - z < _ROOM and _empty(cells, box[0], box[1], box[2], box[3], box[5], box[5] + 1):
            box[5] += 1
            growing = True
        if z - box[4] < _ROOM and _empty(cells, box[0], box[1], box[2], box[3], box[4] - 1, box[4]):
            box[4] -= 1
            growing = True
        if box[3] - y < _ROOM and _empty(cells, box[0], box[1], box[3], box[3] + 1, box[4], box[5]):
            box[3] += 1
            growing = True
    return False


@njit(cache=True, error_model="numpy")
def _bearing(x: float, z: float) -> float:
    """A direction's place on the diamond |x| + |z| = 1, in [0, 4): grows with its angle, and costs one division."""
    q = x / (abs(x) + abs(z) + 1e-300)
    return 1.0 + q if z >= 0.0 else 3.0 - q


@njit(cache=True, error_model="numpy")
def _raise_horizon(x0: float, z0: float, side: float, rise: float, far: float, horizon: NDArray[np.float64]) -> bool:
    """Raises ``horizon`` to a square tower whose low corner lies at (x0, z0) from the eye; False where the eye is inside it."""
    x1, z1 = x0 + side, z0 + side
    nx, nz = max(x0, -x1, 0.0), max(z0, -z1, 0.0)
    gap = math.sqrt(nx * nx + nz * nz)
    if gap == 0.0:
        return False
    if gap > far:
        return True
    slope = rise / gap
    middle = _bearing(x0 + x1, z0 + z1)
    low, high = 0.0, 0.0
    for n in range(4):
        turn = _bearing(x0 if n < 2 else x1, z0 if n % 2 == 0 else z1) - middle
        turn -= 4.0 if turn > 2.0 else -4.0 if turn < -2.0 else 0.0
        low, high = min(low, turn), max(high, turn)
    scale = 0.25 * _BEARINGS
    for n in range(int(math.floor((middle + low) * scale)), int(math.floor((middle + high) * scale)) + 1):
        at = n & (_BEARINGS - 1)
        horizon[at] = max(horizon[at], slope)
    return True


@njit(cache=True, error_model="numpy")
def _find_horizon(
    column_top: NDArray[np.int16], fine_top: NDArray[np.int16], eye: NDArray[np.float64], far: float, horizon: NDArray[np.float64]
) -> None:
    """Fills ``horizon (n,)``: the slope above which a ray of each bearing meets nothing within ``far`` blocks."""
    ox, oy, oz = eye[0], eye[1], eye[2]
    horizon[:] = 0.0
    for i in range(max(int(ox - far), 0) // FINE, min(int(ox + far), SIZE_X - 1) // FINE + 1):
        for k in range(max(int(oz - far), 0) // FINE, min(int(oz + far), SIZE_Z - 1) // FINE + 1):
            rise = fine_top[i, k] + 1 - oy
            if rise <= 0.0:
                continue
            x0, z0 = i * FINE - ox, k * FINE - oz
            if max(abs(x0 + 0.5 * FINE), abs(z0 + 0.5 * FINE)) > 2.5 * FINE:
                _raise_horizon(x0, z0, FINE, rise, far, horizon)
                continue
            # Near the eye a whole tile would hide too much sky: column by column.
            for n in range(FINE * FINE):
                di, dk = n // FINE, n % FINE
                rise = column_top[i * FINE + di, k * FINE + dk] + 1 - oy
                if rise > 0.0 and not _raise_horizon(x0 + di, z0 + dk, 1.0, rise, far, horizon):
                    horizon[:] = math.inf
                    return


@njit(cache=True, error_model="numpy")
def _enter(
    eye: NDArray[np.float64],
    box: NDArray[np.int64],
    far: float,
    count: int,
    rays: NDArray[np.float64],
    walks: NDArray[np.int64],
    depth: NDArray[np.float64],
) -> None:
    """Fills ``walks (8, n)`` and ``depth (n,)`` with where rays leave the empty box about the eye, which is where their walks begin.

    Rows 0-2 are the distances to the next cell border on each axis and rows 3-5 those between two borders, as whole numbers of 2**-40 blocks: the
    walk is then pure integer arithmetic. Row 6 is the index into ``cells``, -1 beyond ``far``; row 7 the face. Made for several rays at a time, as
    :func:`_shade`.
    """
    ox, oy, oz = eye[0], eye[1], eye[2]
    x0, x1, y0, y1, z0, z1 = box[0], box[1], box[2], box[3], box[4], box[5]
    ways_x, ways_y, ways_z, per_x, per_y, per_z = rays[2], rays[3], rays[4], rays[5], rays[6], rays[7]
    next_x, next_y, next_z, gaps_x, gaps_y, gaps_z = walks[0], walks[1], walks[2], walks[3], walks[4], walks[5]
    starts, faces = walks[6], walks[7]
    for m in range(count):
        n = np.uint64(m)
        dx, dy, dz, gx, gy, gz = ways_x[n], ways_y[n], ways_z[n], per_x[n], per_y[n], per_z[n]
        px, py, pz = (1 if dx >= 0.0 else 0), (1 if dy >= 0.0 else 0), (1 if dz >= 0.0 else 0)
        bx, by, bz = (x1 if dx >= 0.0 else x0), (y1 if dy >= 0.0 else y0), (z1 if dz >= 0.0 else z0)
        ux, uy, uz = (bx - ox) * gx, (by - oy) * gy, (bz - oz) * gz
        t = min(ux, uy, uz)
        depth[n] = t
        on_x, on_y = t == ux, t == uy
        ix = bx - 1 + px if on_x else min(max(int(ox + dx * t), x0), x1 - 1)
        iy = by - 1 + py if on_y and not on_x else min(max(int(oy + dy * t), y0), y1 - 1)
        iz = min(max(int(oz + dz * t), z0), z1 - 1) if on_x or on_y else bz - 1 + pz
        next_x[n], next_y[n], next_z[n] = (
            int((ix + px - ox) * gx * _UNIT),
            int((iy + py - oy) * gy * _UNIT),
            int((iz + pz - oz) * gz * _UNIT),
        )
        gaps_x[n], gaps_y[n], gaps_z[n] = int(abs(gx) * _UNIT), int(abs(gy) * _UNIT), int(abs(gz) * _UNIT)
        starts[n] = -1 if t > far else ((ix + 1) * PAD_Y + iy + 1) * PAD_Z + iz + 1
        faces[n] = 1 - px if on_x else 3 - py if on_y else 5 - pz


@njit(cache=True, error_model="numpy")
def _enter_grid(
    eye: NDArray[np.float64], far: float, count: int, rays: NDArray[np.float64], walks: NDArray[np.int64], depth: NDArray[np.float64]
) -> None:
    """:func:`_enter` for an eye outside the grid: rays enter through the grid's box, those that miss it have the index -1."""
    ox, oy, oz = eye[0], eye[1], eye[2]
    for n in range(count):
        dx, dy, dz, gx, gy, gz = rays[2, n], rays[3, n], rays[4, n], rays[5, n], rays[6, n], rays[7, n]
        px, py, pz = (1 if dx >= 0.0 else 0), (1 if dy >= 0.0 else 0), (1 if dz >= 0.0 else 0)
        ux, uy, uz = ((1 - px) * SIZE_X - ox) * gx, ((1 - py) * SIZE_Y - oy) * gy, ((1 - pz) * SIZE_Z - oz) * gz
        t = max(ux, uy, uz)
        depth[n], walks[6, n] = t, -1
        walks[7, n] = 1 - px if t == ux else 3 - py if t == uy else 5 - pz
        qx, qy, qz = ox + dx * t, oy + dy * t, oz + dz * t
        past = qx < -1e-6 or qx > SIZE_X + 1e-6 or qy < -1e-6 or qy > SIZE_Y + 1e-6 or qz < -1e-6 or qz > SIZE_Z + 1e-6
        if t < 0.0 or t > far or past:
            continue
        ix = min(max(int(math.floor(qx)), 0), SIZE_X - 1)
        iy = min(max(int(math.floor(qy)), 0), SIZE_Y - 1)
        iz = min(max(int(math.floor(qz)), 0), SIZE_Z - 1)
        walks[0, n], walks[1, n], walks[2, n] = (
            int((ix + px - ox) * gx * _UNIT),
            int((iy + py - oy) * gy * _UNIT),
            int((iz + pz - oz) * gz * _UNIT),
        )
        walks[3, n], walks[4, n], walks[5, n] = int(abs(gx) * _UNIT), int(abs(gy) * _UNIT), int(abs(gz) * _UNIT)
        walks[6, n] = ((ix + 1) * PAD_Y + iy + 1) * PAD_Z + iz + 1


@njit(cache=True, error_model="numpy")
def _walk(
    cells: NDArray[np.uint8],
    tile_top: NDArray[np.int16],
    eye: NDArray[np.float64],
    box: NDArray[np.int64],
    horizon: NDArray[np.float64],
    far: float,
    wet: bool,
    count: int,
    rays: NDArray[np.float64],
    walks: NDArray[np.int64],
    depth: NDArray[np.float64],
    hits: NDArray[np.int64],
    blocks: NDArray[np.int64],
    todo: NDArray[np.int64],
) -> None:
    """Walks rays through the grid; ``walks (8, n)`` and ``todo (n,)`` are room to work in.

    Fills ``depth`` (n,) in blocks (where something is hit), ``hits`` (n,): 8 * index into ``cells`` + face (0 -x, 1 +x, 2 -y, 3 +y, 4 -z, 5 +z),
    or -1 for sky, and ``blocks`` (n,): 2 * the kind of the block hit, 0 for sky.
    The cell of the eye itself never counts, and water does not for an eye in water (``wet``).
    """
    ox, oy, oz = eye[0], eye[1], eye[2]
    if ox < 0.0 or ox >= SIZE_X or oz < 0.0 or oz >= SIZE_Z or oy < 0.0 or oy >= SIZE_Y:
        _enter_grid(eye, far, count, rays, walks, depth)
    else:
        _enter(eye, box, far, count, rays, walks, depth)
    # Most rays end in the block that they meet first. They are told from the others without a branch: a wrong guess costs more than a step.
    left, starts, faces = 0, walks[6], walks[7]
    for m in range(count):
        n = np.uint64(m)
        cell = starts[n]
        c = cells[np.uint64(max(cell, 0))]  # unsigned: numba then leaves out its test for negative indices
        inside, solid = cell >= 0, (c != AIR) & (c < OUTSIDE) & ~(wet & (c == WATER))
        hits[n] = 8 * cell + faces[n] if inside & solid else -1
        blocks[n] = 2 * np.int64(c) if inside & solid else 0
        todo[np.uint64(left)] = m
        left += 1 if inside & ~solid else 0
    for m in range(left):
        n = todo[np.uint64(m)]
        t, cell, face = depth[n], starts[n], faces[n]
        dx, dy, dz, gx, gy, gz = rays[2, n], rays[3, n], rays[4, n], rays[5, n], rays[6, n], rays[7, n]
        if dy > 0.0 and dy * dy > horizon[int(_bearing(dx, dz) * (0.25 * _BEARINGS)) & (_BEARINGS - 1)] ** 2 * (dx * dx + dz * dz):
            continue
        tx, ty, tz, ax, ay, az = walks[0, n], walks[1, n], walks[2, n], walks[3, n], walks[4, n], walks[5, n]
        px, py, pz = (1 if dx >= 0.0 else 0), (1 if dy >= 0.0 else 0), (1 if dz >= 0.0 else 0)
        jx, jy, jz = (2 * px - 1) * PAD_Y * PAD_Z, (2 * py - 1) * PAD_Z, 2 * pz - 1
        c = cells[np.uint64(cell)]
        while True:
            if c == AIR:
                mx, my, q = 0, 0, 0
                while c == AIR:
                    # Masks, not branches: which axis is next cannot be predicted, and a wrong guess costs more than the whole step.
                    q = min(tx, ty, tz)
                    mx = ((tx - ty) & (tx - tz)) >> 63
                    y_first = (ty - tz) >> 63
                    my, mz = ~mx & y_first, ~(mx | y_first)
                    tx += ax & mx
                    ty += ay & my
                    tz += az & mz
                    cell += (jx & mx) | (jy & my) | (jz & mz)
                    c = cells[np.uint64(cell)]
                t = q * (1.0 / _UNIT)
                face = 1 - px if mx else 3 - py if my else 5 - pz
            if c == OUTSIDE or t > far:
                break
            if c < OUTSIDE:
                if wet and c == WATER:
                    c = np.uint8(AIR)
                    continue
                depth[n], hits[n], blocks[n] = t, 8 * cell + face, 2 * np.int64(c)
                break
            # Nothing in this tile of columns reaches the ray: jump to where it leaves the tile or sinks to the tile's top.
            iz, iy, ix = cell % PAD_Z - 1, cell // PAD_Z % PAD_Y - 1, cell // (PAD_Y * PAD_Z) - 1
            low_x, low_z = ix // TILE * TILE, iz // TILE * TILE
            cap = int(tile_top[ix // TILE, iz // TILE])
            bx, bz = low_x + px * TILE, low_z + pz * TILE
            ux, uz = (bx - ox) * gx, (bz - oz) * gz
            uy = (cap + 1 - oy) * gy if py == 0 else math.inf
            t = min(ux, uy, uz)
            # The minimum and maximum hold the cell in the tile, whatever the rounding.
            ix = min(max(int(ox + dx * t), low_x), low_x + TILE - 1)
            iz = min(max(int(oz + dz * t), low_z), low_z + TILE - 1)
            if t == uy:
                iy, face = cap, 3
            else:
                height = int(oy + dy * t)
                iy = max(height, cap + 1) if py == 0 else min(max(height, iy), SIZE_Y)
                if t == ux:
                    ix, face = bx - 1 + px, 1 - px
                else:
                    iz, face = bz - 1 + pz, 5 - pz
            tx, ty, tz = int((ix + px - ox) * gx * _UNIT), int((iy + py - oy) * gy * _UNIT), int((iz + pz - oz) * gz * _UNIT)
            cell = ((ix + 1) * PAD_Y + iy + 1) * PAD_Z + iz + 1
            c = cells[np.uint64(cell)]


@njit(cache=True, error_model="numpy")
def _darken(column_top: NDArray[np.int16], count: int, hits: NDArray[np.int64], blocks: NDArray[np.int64]) -> None:
    """Adds 1 to ``blocks (n,)`` of walked rays where something is above the air in front of the face hit, as if the sun stood in the zenith."""
    for n in range(count):
        if hits[n] < 0:
            continue
        cell, face = hits[n] >> 3, np.uint64(hits[n] & 7)  # unsigned indices: see _walk
        column = cell // PAD_Z
        ix = column // PAD_Y
        nx, ny, nz = ix - 1 + _FACE_X[face], column - ix * PAD_Y - 1 + _FACE_Y[face], cell - column * PAD_Z - 1 + _FACE_Z[face]
        above = column_top[np.uint64(min(max(nx, 0), SIZE_X - 1)), np.uint64(min(max(nz, 0), SIZE_Z - 1))]
        shaded = np.int64(above > ny) & np.int64(nx >= 0) & np.int64(nx < SIZE_X) & np.int64(nz >= 0) & np.int64(nz < SIZE_Z)
        blocks[n] += shaded


@njit(cache=True, error_model="numpy")
def _shade(
    eye: NDArray[np.float64],
    far: float,
    wet: bool,
    pixel: float,
    count: int,
    rays: NDArray[np.float64],
    depth: NDArray[np.float64],
    hits: NDArray[np.int64],
    blocks: NDArray[np.int64],
    colours: NDArray[np.float64],
) -> None:
    """Fills ``colours (3, n)`` in 0-255 of walked rays; ``pixel`` is the picture's pixel width as a tangent.

    The compiler makes this one loop work on several rays at a time, as long as nothing in it branches by ray, all tables are constants, and whole
    numbers are divided by shifts or as floating-point numbers (which is exact in the range they have). That makes it three times faster.
    """
    ox, oy, oz = eye[0], eye[1], eye[2]
    start = 0.0 if wet else _FOG_START
    thickness = 1.0 / (far - start)
    ways_x, ways_y, ways_z = rays[2], rays[3], rays[4]
    red, green, blue = colours[0], colours[1], colours[2]
    for m in range(count):
        n = np.uint64(m)
        dx, dy, dz, sky = ways_x[n], ways_y[n], ways_z[n], hits[n] < 0
        t, hit = 0.0 if sky else depth[n], 0 if sky else hits[n]
        s = min(max(1.5 * dy, 0.0), 1.0)
        s = s * (2.0 - s)
        fr = _WATER_FOG[0] if wet else _HORIZON[0] + (_ZENITH[0] - _HORIZON[0]) * s
        fg = _WATER_FOG[1] if wet else _HORIZON[1] + (_ZENITH[1] - _HORIZON[1]) * s
        fb = _WATER_FOG[2] if wet else _HORIZON[2] + (_ZENITH[2] - _HORIZON[2]) * s
        fog = min(max(t - start, 0.0) * thickness, 1.0)
        fog = fog if wet else fog * fog
        cell, face = hit >> 3, hit & 7
        column = int((cell + 0.5) * (1.0 / PAD_Z))
        ix = int((column + 0.5) * (1.0 / PAD_Y))
        iy, iz = column - ix * PAD_Y - 1, cell - column * PAD_Z - 1
        ix -= 1
        on_x, on_y = face < 2, (face >> 1) == 1
        spot_x, spot_y, spot_z = ox + dx * t - ix, oy + dy * t - iy, oz + dz * t - iz
        u, v = spot_z if on_x else spot_x, spot_z if on_y else 1.0 - spot_y
        slope = abs(dx if on_x else dy if on_y else dz)
        shade = _BRIGHTNESS[np.uint64(2 * face + (blocks[n] & 1))]
        # Mip level: texels a pixel covers, more at a grazing angle. Two levels are mixed, so that nothing pops when the camera moves.
        cover = max((16.0 * pixel * t) ** 2 / max(slope, 0.04), 1e-12)
        # Its binary logarithm to 1e-8, from its exponent bits and a table: several times faster than the library's.
        bits = np.float64(cover).view(np.int64)
        at = np.uint64((bits >> 52 - 12) & 4095)
        low, high = _LOG2[at], _LOG2[at + np.uint64(1)]
        logarithm = ((bits >> 52) - 1023) + low + (high - low) * (bits & (1 << 40) - 1) * 2.0**-40
        level = min(max(0.5 * logarithm, 0.0), 3.999)
        fine = int(level)
        mix = level - fine
        width = 16 >> fine
        across, row = min(max(int(u * width), 0), width - 1), min(max(int(v * width), 0), width - 1)
        first = ((1024 - (1024 >> (2 * fine))) * 43691) >> 17  # a third: texels of the finer levels, 0, 256, 320, 336
        texel = first + row * width + across
        coarse = first + width * width + (row >> 1) * (width >> 1) + (across >> 1)
        kind = 3 * _TEXELS * (blocks[n] >> 1) + _FACE_TEXELS[np.uint64(face)]
        # A few per cent of brightness by block, so that single blocks of a plain can be told apart from near by.
        h = np.uint32(ix * 73856093) ^ np.uint32(iy * 19349663) ^ np.uint32(iz * 83492791)
        h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(0x5BD1E995))
        h = np.uint32(h ^ (h >> np.uint32(15)))
        near = min(max((28.0 - t) * (1.0 / 22.0), 0.0), 1.0)
        shade *= 1.0 + 0.05 * near * (float(np.int32(h & np.uint32(255))) * (1.0 / 127.5) - 1.0)
        one, two = np.uint64(3 * (kind + texel)), np.uint64(3 * (kind + coarse))
        r = (_FLAT_TEXTURES[one] * (1.0 - mix) + _FLAT_TEXTURES[two] * mix) * shade
        g = (_FLAT_TEXTURES[one + np.uint64(1)] * (1.0 - mix) + _FLAT_TEXTURES[two + np.uint64(1)] * mix) * shade
        b = (_FLAT_TEXTURES[one + np.uint64(2)] * (1.0 - mix) + _FLAT_TEXTURES[two + np.uint64(2)] * mix) * shade
        if wet:
            r, g, b = 0.5 * r, 0.7 * g, 0.95 * b
        r, g, b = (
            min(r, 255.0) * (1.0 - fog) + fr * fog,
            min(g, 255.0) * (1.0 - fog) + fg * fog,
            min(b, 255.0) * (1.0 - fog) + fb * fog,
        )
        red[n], green[n], blue[n] = fr if sky else r, fg if sky else g, fb if sky else b


@njit(cache=True, error_model="numpy")
def _find_edges(colours: NDArray[np.float64], gap: int, columns: int, edges: NDArray[np.bool_]) -> None:
    """Marks the pixels of ``colours (3, n)`` that are unlike the one ``gap`` places on, and that one; rows have ``columns`` pixels."""
    red, green, blue = colours[0], colours[1], colours[2]
    count = len(red) - gap
    unlike = np.empty(count, np.bool_)
    for n in range(count):
        unlike[n] = abs(red[n] - red[n + gap]) + abs(green[n] - green[n + gap]) + abs(blue[n] - blue[n + gap]) > _EDGE
    if gap == 1:
        unlike[columns - 1 :: columns] = False
    for n in range(count):
        edges[n] |= unlike[n]
    for n in range(count):
        edges[n + gap] |= unlike[n]


@njit(cache=True, error_model="numpy", nogil=True)
def _render(
    cells: NDArray[np.uint8],
    column_top: NDArray[np.int16],
    tile_top: NDArray[np.int16],
    fine_top: NDArray[np.int16],
    eye: NDArray[np.float64],
    basis: NDArray[np.float64],
    half: float,
    first: int,
    last: int,
    frame: NDArray[np.uint8],
) -> None:
    """Fills the rows from ``first`` to before ``last`` of ``frame``.

    ``eye`` is in grid units, ``basis`` rows are the camera's right, up and forward, ``half`` the tangent of half the FOV.
    """
    rows, columns = frame.shape[0], frame.shape[1]
    # The neighbours above and below are looked at too: what is an edge does not depend on where a picture is cut.
    above = max(first - 1, 0)
    total = (min(last + 1, rows) - above) * columns
    box, horizon = np.empty(6, np.int64), np.empty(_BEARINGS)
    wet = _room(cells, eye, box)
    far = _WATER_VIEW if wet else VIEW_DISTANCE
    _find_horizon(column_top, fine_top, eye, far, horizon)
    step = 2.0 * half / rows
    # Rays go in batches: one simple loop after the other over arrays that stay in the cache.
    rays, depth, hits, colours = np.empty((8, _BATCH)), np.empty(_BATCH), np.empty(_BATCH, np.int64), np.empty((3, _BATCH))
    walks, blocks, todo = np.empty((8, _BATCH), np.int64), np.empty(_BATCH, np.int64), np.empty(_BATCH, np.int64)
    pixels = frame[above:].reshape((rows - above) * columns, 3)
    centres = np.empty((3, total))
    j, i = above, 0
    for start in range(0, total, _BATCH):
        count = min(_BATCH, total - start)
        for n in range(count):
            rays[0, n] = step * (i + 0.5 - 0.5 * columns)
            rays[1, n] = half - step * (j + 0.5)
            i += 1
            if i == columns:
                j, i = j + 1, 0
        _aim(basis, count, rays)
        _walk(cells, tile_top, eye, box, horizon, far, wet, count, rays, walks, depth, hits, blocks, todo)
        _darken(column_top, count, hits, blocks)
        _shade(eye, far, wet, step, count, rays, depth, hits, blocks, colours)
        for n in range(count):
            for k in range(3):
                centres[k, start + n] = colours[k, n]
    own = (first - above) * columns, (last - above) * columns
    for n in range(own[0], own[1]):
        for k in range(3):
            pixels[n, k] = np.uint8(centres[k, n] + 0.5)
    # Pixels unlike a neighbour get four more rays: without them edges crawl, which is noise to a model that learns the next picture.
    edges = np.zeros(total, np.bool_)
    _find_edges(centres, 1, columns, edges)
    _find_edges(centres, columns, columns, edges)
    marked = np.flatnonzero(edges[own[0] : own[1]]) + own[0]
    for start in range(0, len(marked), _BATCH // 4):
        count = min(_BATCH // 4, len(marked) - start)
        for n in range(count):
            here = marked[start + n]
            j = here // columns
            i = here - j * columns
            for m in range(4):
                # Rotated grid: four offsets with four different rows and columns.
                rays[0, 4 * n + m] = step * (i + 0.5 + _OFFSET_I[m] - 0.5 * columns)
                rays[1, 4 * n + m] = half - step * (above + j + 0.5 + _OFFSET_J[m])
        _aim(basis, 4 * count, rays)
        _walk(cells, tile_top, eye, box, horizon, far, wet, 4 * count, rays, walks, depth, hits, blocks, todo)
        _darken(column_top, 4 * count, hits, blocks)
        _shade(eye, far, wet, step, 4 * count, rays, depth, hits, blocks, colours)
        for n in range(count):
            here, m = marked[start + n], 4 * n
            for k in range(3):
                mixed = centres[k, here] + colours[k, m] + colours[k, m + 1] + colours[k, m + 2] + colours[k, m + 3]
                pixels[here, k] = np.uint8(0.2 * mixed + 0.5)


@njit(cache=True, error_model="numpy")
def _hits(
    cells: NDArray[np.uint8],
    column_top: NDArray[np.int16],
    tile_top: NDArray[np.int16],
    fine_top: NDArray[np.int16],
    eye: NDArray[np.float64],
    basis: NDArray[np.float64],
    half: float,
    depth: NDArray[np.float64],
    ids: NDArray[np.int64],
) -> None:
    """Fills the distance and the face id of the block each pixel's centre ray hits."""
    rows, columns = depth.shape
    box = np.empty(6, np.int64)
    wet = _room(cells, eye, box)
    horizon = np.empty(_BEARINGS)
    _find_horizon(column_top, fine_top, eye, VIEW_DISTANCE, horizon)
    step = 2.0 * half / rows
    rays, walks, t = np.empty((8, columns)), np.empty((8, columns), np.int64), np.empty(columns)
    hits, blocks, todo = np.empty(columns, np.int64), np.empty(columns, np.int64), np.empty(columns, np.int64)
    for j in range(rows):
        for i in range(columns):
            rays[0, i] = step * (i + 0.5 - 0.5 * columns)
            rays[1, i] = half - step * (j + 0.5)
        _aim(basis, columns, rays)
        _walk(cells, tile_top, eye, box, horizon, VIEW_DISTANCE, wet, columns, rays, walks, t, hits, blocks, todo)
        for i in range(columns):
            depth[j, i] = t[i] if hits[i] >= 0 else math.inf
            cell, face = hits[i] >> 3, hits[i] & 7
            iz, iy, ix = cell % PAD_Z - 1, cell // PAD_Z % PAD_Y - 1, cell // (PAD_Y * PAD_Z) - 1
            ids[j, i] = -1 if hits[i] < 0 else ((ix * SIZE_Y + iy) * SIZE_Z + iz) * 6 + face


def check_size(frame_size: tuple[int, int]) -> tuple[int, int]:
    """Returns ``(height, width)`` as ints.

    Raises:
        ValueError: if a side is not a whole number in [8, 2160].
    """
    try:
        height, width = frame_size
    except (TypeError, ValueError):
        raise ValueError(f"frame_size is {frame_size!r}, expected (height, width) in pixels.") from None
    for side in (height, width):
        if int(side) != side or not MIN_SIDE <= side <= MAX_SIDE:
            raise ValueError(f"frame_size is {tuple(frame_size)}, expected (height, width), each from {MIN_SIDE} to {MAX_SIDE} pixels.")
    return int(height), int(width)


def _camera(pose: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eye ``(3,)`` in grid units and camera basis ``(3, 3)`` (rows right, up, forward) of a pose ``(5,)``."""
    x, y, z, yaw, pitch = pose.tolist()
    a, p = math.radians(yaw), math.radians(pitch)
    eye = np.array([x - ORIGIN[0], y + EYE_HEIGHT, z - ORIGIN[1]])
    right = (-math.cos(a), 0.0, -math.sin(a))
    up = (-math.sin(a) * math.sin(p), math.cos(p), math.cos(a) * math.sin(p))
    ahead = (-math.sin(a) * math.cos(p), -math.sin(p), math.cos(a) * math.cos(p))
    return eye, np.array([right, up, ahead])


def _one_pose(pose: ArrayLike) -> NDArray[np.float64]:
    """``check_pose`` for a single pose ``(5,)``."""
    array = check_pose(pose)
    if array.shape != (POSE_DIM,):
        raise ValueError(f"pose has shape {array.shape}, expected (5,): x, y, z in blocks, yaw, pitch in degrees.")
    return array


_HALF: Final = math.tan(math.radians(VERTICAL_FOV) / 2.0)


@lru_cache
def _helpers(count: int) -> ThreadPoolExecutor:
    """Threads that draw parts of pictures."""
    return ThreadPoolExecutor(count, "raycast")


def render(terrain: Terrain, pose: ArrayLike, frame_size: tuple[int, int], *, threads: int = 1) -> NDArray[np.uint8]:
    """The ``(H, W, 3) uint8`` RGB picture from ``pose`` (5,), any pose, at ``frame_size`` (height, width) in pixels.

    ``threads`` draw it at the same time, which does not change it; worth it where somebody waits for this one picture.
    """
    height, width = check_size(frame_size)
    frame = np.empty((height, width, 3), np.uint8)
    eye, basis = _camera(_one_pose(pose))

    def draw(first: int, last: int) -> None:
        _render(terrain.cells, terrain.column_top, terrain.tile_top, terrain.fine_top, eye, basis, _HALF, first, last, frame)

    if threads == 1:
        draw(0, height)
        return frame
    # The sky is drawn faster than the ground: more bands than threads, so that all end at about the same time.
    cuts = [height * n // (2 * threads) for n in range(2 * threads + 1)]
    bands = list(pairwise(cuts))

    def some(which: int) -> None:
        for n in (which, 2 * threads - 1 - which):
            draw(*bands[n])

    others = [_helpers(threads - 1).submit(some, n) for n in range(1, threads)]
    some(0)
    for other in others:
        other.result()
    return frame


def first_hits(terrain: Terrain, pose: ArrayLike, frame_size: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What the centre ray of each pixel hits first.

    Returns:
        ``(depth, ids)``, both ``(H, W)``: the distance from the eye along the ray in blocks (inf for sky and beyond ``VIEW_DISTANCE``), and a
        number for the (block, face) hit, the same from every pose (-1 for sky).
    """
    size = check_size(frame_size)
    depth, ids = np.empty(size, np.float64), np.empty(size, np.int64)
    eye, basis = _camera(_one_pose(pose))
    _hits(terrain.cells, terrain.column_top, terrain.tile_top, terrain.fine_top, eye, basis, _HALF, depth, ids)
    return depth, ids
