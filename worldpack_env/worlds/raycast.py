"""Pictures of a block grid by ray casting in numba: one ray a pixel, a few more where neighbours differ.

The grid walk is Amanatides & Woo, "A Fast Voxel Traversal Algorithm" (1987), with jumps over tiles of columns whose highest block lies below
the ray. Nothing here is timed, threaded or random, and floating-point reordering is off, so a pose gives the same bytes every time.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from worldpack_env.worlds import terrain as _t
from worldpack_env.worlds.terrain import ORIGIN, SIZE_X, SIZE_Y, SIZE_Z, TILE, WATER, Terrain
from worldpack_model.geometry import EYE_HEIGHT, VERTICAL_FOV, check_pose

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
_SHADOW: Final = 0.78
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


@njit(cache=True, error_model="numpy")
def _trace(
    blocks: NDArray[np.uint8],
    tile_top: NDArray[np.int16],
    top: int,
    ox: float,
    oy: float,
    oz: float,
    dx: float,
    dy: float,
    dz: float,
    far: float,
    wet: bool,
) -> tuple[float, int, int, int, int]:
    """Walks one ray from a point in grid units along a unit vector.

    Returns:
        (distance, cell x, y, z, face); face is 0 -x, 1 +x, 2 -y, 3 +y, 4 -z, 5 +z of the cell hit, or -1 for sky. The cell of the eye itself
        never counts, and water does not for an eye in water (``wet``).
    """
    sx, sy, sz = (1 if dx > 0 else -1), (1 if dy > 0 else -1), (1 if dz > 0 else -1)
    px, py, pz = (1 if dx > 0 else 0), (1 if dy > 0 else 0), (1 if dz > 0 else 0)
    gx, gy, gz = 1.0 / (dx if dx != 0.0 else 1e-30), 1.0 / (dy if dy != 0.0 else 1e-30), 1.0 / (dz if dz != 0.0 else 1e-30)
    t = 0.0
    face = -1
    ix, iy, iz = int(math.floor(ox)), int(math.floor(oy)), int(math.floor(oz))
    if ix < 0 or ix >= SIZE_X or iz < 0 or iz >= SIZE_Z or iy < 0 or iy >= SIZE_Y:
        # An eye outside the grid: enter through its box.
        tx, ty, tz = ((1 - px) * SIZE_X - ox) * gx, ((1 - py) * SIZE_Y - oy) * gy, ((1 - pz) * SIZE_Z - oz) * gz
        if tx >= ty and tx >= tz:
            t, face = tx, 1 - px
        elif ty >= tz:
            t, face = ty, 3 - py
        else:
            t, face = tz, 5 - pz
        if t < 0.0 or t > far:
            return math.inf, 0, 0, 0, -1
        qx, qy, qz = ox + dx * t, oy + dy * t, oz + dz * t
        if qx < -1e-6 or qx > SIZE_X + 1e-6 or qy < -1e-6 or qy > SIZE_Y + 1e-6 or qz < -1e-6 or qz > SIZE_Z + 1e-6:
            return math.inf, 0, 0, 0, -1
        ix = min(max(int(math.floor(qx)), 0), SIZE_X - 1)
        iy = min(max(int(math.floor(qy)), 0), SIZE_Y - 1)
        iz = min(max(int(math.floor(qz)), 0), SIZE_Z - 1)
    ax, ay, az = abs(gx), abs(gy), abs(gz)
    tx, ty, tz = (ix + px - ox) * gx, (iy + py - oy) * gy, (iz + pz - oz) * gz
    while True:
        if iy > top and dy >= 0.0:
            return math.inf, 0, 0, 0, -1
        cap = tile_top[ix // TILE, iz // TILE]
        if iy > cap:
            # Nothing in this tile of columns reaches the ray: jump to where it leaves the tile or sinks to the tile's top.
            jx = ((ix // TILE + px) * TILE - ox) * gx
            jz = ((iz // TILE + pz) * TILE - oz) * gz
            jy = (cap + 1 - oy) * gy if dy < 0.0 else math.inf
            if jy <= jx and jy <= jz:
                t = jy
                iy = cap
                ix = min(max(int(ox + dx * t), ix // TILE * TILE), ix // TILE * TILE + TILE - 1)
                iz = min(max(int(oz + dz * t), iz // TILE * TILE), iz // TILE * TILE + TILE - 1)
                face = 3
            else:
                bx, bz = ix // TILE, iz // TILE
                if jx <= jz:
                    t = jx
                    ix = (bx + px) * TILE - (1 - px)
                    iz = min(max(int(oz + dz * t), bz * TILE), bz * TILE + TILE - 1)
                    face = 1 - px
                else:
                    t = jz
                    iz = (bz + pz) * TILE - (1 - pz)
                    ix = min(max(int(ox + dx * t), bx * TILE), bx * TILE + TILE - 1)
                    face = 5 - pz
                here = int(math.floor(oy + dy * t))
                iy = max(here, cap + 1) if dy < 0.0 else max(here, iy)
                if ix < 0 or ix >= SIZE_X or iz < 0 or iz >= SIZE_Z or t > far:
                    return math.inf, 0, 0, 0, -1
            tx, ty, tz = (ix + px - ox) * gx, (iy + py - oy) * gy, (iz + pz - oz) * gz
            if t > far:
                return math.inf, 0, 0, 0, -1
        else:
            if tx < ty and tx < tz:
                t = tx
                tx += ax
                ix += sx
                face = 1 - px
                if ix < 0 or ix >= SIZE_X:
                    return math.inf, 0, 0, 0, -1
            elif ty < tz:
                t = ty
                ty += ay
                iy += sy
                face = 3 - py
                if iy < 0 or iy >= SIZE_Y:
                    return math.inf, 0, 0, 0, -1
            else:
                t = tz
                tz += az
                iz += sz
                face = 5 - pz
                if iz < 0 or iz >= SIZE_Z:
                    return math.inf, 0, 0, 0, -1
            if t > far:
                return math.inf, 0, 0, 0, -1
        if iy < SIZE_Y:
            b = blocks[ix, iy, iz]
            if b != 0 and not (wet and b == WATER):
                return t, ix, iy, iz, face


@njit(cache=True, error_model="numpy")
def _colour(
    blocks: NDArray[np.uint8],
    column_top: NDArray[np.int16],
    tile_top: NDArray[np.int16],
    textures: NDArray[np.float32],
    top: int,
    ox: float,
    oy: float,
    oz: float,
    dx: float,
    dy: float,
    dz: float,
    far: float,
    wet: bool,
    pixel: float,
) -> tuple[float, float, float]:
    """Colour (red, green, blue) in 0-255 that one ray sees; ``pixel`` is the picture's pixel width in radians."""
    s = min(max(1.5 * dy, 0.0), 1.0)
    s = s * (2.0 - s)
    fr = _HORIZON[0] + (_ZENITH[0] - _HORIZON[0]) * s
    fg = _HORIZON[1] + (_ZENITH[1] - _HORIZON[1]) * s
    fb = _HORIZON[2] + (_ZENITH[2] - _HORIZON[2]) * s
    if wet:
        fr, fg, fb = _WATER_FOG
    t, ix, iy, iz, face = _trace(blocks, tile_top, top, ox, oy, oz, dx, dy, dz, far, wet)
    if face < 0:
        return fr, fg, fb
    start = 0.0 if wet else _FOG_START
    fog = min(max((t - start) / (far - start), 0.0), 1.0)
    fog = fog * fog if not wet else fog
    if fog >= 1.0:
        return fr, fg, fb
    hx, hy, hz = ox + dx * t - ix, oy + dy * t - iy, oz + dz * t - iz
    nx, ny, nz = ix, iy, iz
    if face < 2:
        u, v, shade, side, slope = hz, 1.0 - hy, 0.6, 1, abs(dx)
        nx += 2 * face - 1
    elif face < 4:
        u, v, shade, side, slope = hx, hz, (1.0 if face == 3 else 0.5), (0 if face == 3 else 2), abs(dy)
        ny += 2 * face - 5
    else:
        u, v, shade, side, slope = hx, 1.0 - hy, 0.8, 1, abs(dz)
        nz += 2 * face - 9
    if 0 <= nx < SIZE_X and 0 <= nz < SIZE_Z and column_top[nx, nz] > ny:
        shade *= _SHADOW  # something above the air in front of this face: as if the sun stood in the zenith
    b = blocks[ix, iy, iz]
    # Mip level: texels a pixel covers, more at a grazing angle. Two levels are mixed, so that nothing pops when the camera moves.
    cover = 16.0 * t * pixel / math.sqrt(max(slope, 0.04))
    level = min(max(math.log2(max(cover, 1e-6)), 0.0), 3.999)
    fine = int(level)
    mix = level - fine
    width, first = 16 >> fine, 0
    for n in range(fine):
        first += (16 >> n) * (16 >> n)
    column, row = min(max(int(u * width), 0), width - 1), min(max(int(v * width), 0), width - 1)
    half = width // 2
    texel = first + row * width + column
    coarse = first + width * width + (row // 2) * half + column // 2
    kind = 3 * b + side
    # A few per cent of brightness by block, so that single blocks of a plain can be told apart from near by.
    h = np.uint32(ix * 73856093) ^ np.uint32(iy * 19349663) ^ np.uint32(iz * 83492791)
    h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(0x5BD1E995))
    h = np.uint32(h ^ (h >> np.uint32(15)))
    near = min(max((28.0 - t) / 22.0, 0.0), 1.0)
    shade *= 1.0 + 0.05 * near * (float(h & np.uint32(255)) / 127.5 - 1.0)
    r = (textures[kind, texel, 0] * (1.0 - mix) + textures[kind, coarse, 0] * mix) * shade
    g = (textures[kind, texel, 1] * (1.0 - mix) + textures[kind, coarse, 1] * mix) * shade
    bl = (textures[kind, texel, 2] * (1.0 - mix) + textures[kind, coarse, 2] * mix) * shade
    if wet:
        r, g, bl = 0.5 * r, 0.7 * g, 0.95 * bl
    return (
        min(r, 255.0) * (1.0 - fog) + fr * fog,
        min(g, 255.0) * (1.0 - fog) + fg * fog,
        min(bl, 255.0) * (1.0 - fog) + fb * fog,
    )


@njit(cache=True, error_model="numpy")
def _render(
    blocks: NDArray[np.uint8],
    column_top: NDArray[np.int16],
    tile_top: NDArray[np.int16],
    textures: NDArray[np.float32],
    eye: NDArray[np.float64],
    basis: NDArray[np.float64],
    half: float,
    frame: NDArray[np.uint8],
) -> None:
    """Fills ``frame``; ``eye`` in grid units, ``basis`` rows are the camera's right, up and forward, ``half`` the tangent of half the FOV."""
    rows, columns = frame.shape[0], frame.shape[1]
    ox, oy, oz = eye[0], eye[1], eye[2]
    cx, cy, cz = int(math.floor(ox)), int(math.floor(oy)), int(math.floor(oz))
    wet = 0 <= cx < SIZE_X and 0 <= cy < SIZE_Y and 0 <= cz < SIZE_Z and blocks[cx, cy, cz] == WATER
    far = _WATER_VIEW if wet else VIEW_DISTANCE
    top = 0
    for i in range(max(cx - 64, 0) // TILE, min(cx + 65, SIZE_X - 1) // TILE + 1):
        for k in range(max(cz - 64, 0) // TILE, min(cz + 65, SIZE_Z - 1) // TILE + 1):
            top = max(top, int(tile_top[i, k]))
    step = 2.0 * half / rows
    colours = np.empty((rows, columns, 3), np.float32)
    for j in range(rows):
        up = half - step * (j + 0.5)
        for i in range(columns):
            right = step * (i + 0.5 - 0.5 * columns)
            n = 1.0 / math.sqrt(1.0 + up * up + right * right)
            dx = (basis[0, 0] * right + basis[1, 0] * up + basis[2, 0]) * n
            dy = (basis[0, 1] * right + basis[1, 1] * up + basis[2, 1]) * n
            dz = (basis[0, 2] * right + basis[1, 2] * up + basis[2, 2]) * n
            r, g, b = _colour(blocks, column_top, tile_top, textures, top, ox, oy, oz, dx, dy, dz, far, wet, step)
            colours[j, i, 0], colours[j, i, 1], colours[j, i, 2] = r, g, b
    for j in range(rows):
        for i in range(columns):
            edge = np.float32(0.0)
            for n in range(4):
                jj, ii = j + (n == 0) - (n == 1), i + (n == 2) - (n == 3)
                if 0 <= jj < rows and 0 <= ii < columns:
                    difference = (
                        abs(colours[j, i, 0] - colours[jj, ii, 0])
                        + abs(colours[j, i, 1] - colours[jj, ii, 1])
                        + abs(colours[j, i, 2] - colours[jj, ii, 2])
                    )
                    edge = max(edge, difference)
            r, g, b = float(colours[j, i, 0]), float(colours[j, i, 1]), float(colours[j, i, 2])
            if edge > _EDGE:
                for n in range(4):
                    # Rotated grid: four offsets with four different rows and columns.
                    oi = 0.375 if n == 0 else 0.125 if n == 1 else -0.125 if n == 2 else -0.375
                    oj = -0.125 if n == 0 else 0.375 if n == 1 else -0.375 if n == 2 else 0.125
                    up = half - step * (j + 0.5 + oj)
                    right = step * (i + 0.5 + oi - 0.5 * columns)
                    m = 1.0 / math.sqrt(1.0 + up * up + right * right)
                    dx = (basis[0, 0] * right + basis[1, 0] * up + basis[2, 0]) * m
                    dy = (basis[0, 1] * right + basis[1, 1] * up + basis[2, 1]) * m
                    dz = (basis[0, 2] * right + basis[1, 2] * up + basis[2, 2]) * m
                    r2, g2, b2 = _colour(blocks, column_top, tile_top, textures, top, ox, oy, oz, dx, dy, dz, far, wet, step)
                    r, g, b = r + r2, g + g2, b + b2
                r, g, b = 0.2 * r, 0.2 * g, 0.2 * b
            frame[j, i, 0], frame[j, i, 1], frame[j, i, 2] = np.uint8(r + 0.5), np.uint8(g + 0.5), np.uint8(b + 0.5)


@njit(cache=True, error_model="numpy")
def _hits(
    blocks: NDArray[np.uint8],
    tile_top: NDArray[np.int16],
    eye: NDArray[np.float64],
    basis: NDArray[np.float64],
    half: float,
    depth: NDArray[np.float64],
    ids: NDArray[np.int64],
) -> None:
    """Fills the distance and the face id of the block each pixel's centre ray hits."""
    rows, columns = depth.shape
    cx, cy, cz = int(math.floor(eye[0])), int(math.floor(eye[1])), int(math.floor(eye[2]))
    wet = 0 <= cx < SIZE_X and 0 <= cy < SIZE_Y and 0 <= cz < SIZE_Z and blocks[cx, cy, cz] == WATER
    step = 2.0 * half / rows
    for j in range(rows):
        up = half - step * (j + 0.5)
        for i in range(columns):
            right = step * (i + 0.5 - 0.5 * columns)
            n = 1.0 / math.sqrt(1.0 + up * up + right * right)
            dx = (basis[0, 0] * right + basis[1, 0] * up + basis[2, 0]) * n
            dy = (basis[0, 1] * right + basis[1, 1] * up + basis[2, 1]) * n
            dz = (basis[0, 2] * right + basis[1, 2] * up + basis[2, 2]) * n
            t, ix, iy, iz, face = _trace(blocks, tile_top, SIZE_Y - 1, eye[0], eye[1], eye[2], dx, dy, dz, VIEW_DISTANCE, wet)
            depth[j, i] = t
            ids[j, i] = -1 if face < 0 else ((ix * SIZE_Y + iy) * SIZE_Z + iz) * 6 + face


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


def _camera(pose: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eye ``(3,)`` in grid units and camera basis ``(3, 3)`` (rows right, up, forward) of a pose ``(5,)``."""
    x, y, z, yaw, pitch = (float(v) for v in check_pose(pose))
    a, p = math.radians(yaw), math.radians(pitch)
    eye = np.array([x - ORIGIN[0], y + EYE_HEIGHT, z - ORIGIN[1]])
    right = (-math.cos(a), 0.0, -math.sin(a))
    up = (-math.sin(a) * math.sin(p), math.cos(p), math.cos(a) * math.sin(p))
    ahead = (-math.sin(a) * math.cos(p), -math.sin(p), math.cos(a) * math.cos(p))
    return eye, np.array([right, up, ahead])


_HALF: Final = math.tan(math.radians(VERTICAL_FOV) / 2.0)


def render(terrain: Terrain, pose: ArrayLike, frame_size: tuple[int, int]) -> NDArray[np.uint8]:
    """The ``(H, W, 3) uint8`` RGB picture from ``pose`` (5,), any pose, at ``frame_size`` (height, width) in pixels."""
    frame = np.empty((*check_size(frame_size), 3), np.uint8)
    eye, basis = _camera(pose)
    _render(terrain.blocks, terrain.column_top, terrain.tile_top, TEXTURES, eye, basis, _HALF, frame)
    return frame


def first_hits(terrain: Terrain, pose: ArrayLike, frame_size: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What the centre ray of each pixel hits first.

    Returns:
        ``(depth, ids)``, both ``(H, W)``: the distance from the eye along the ray in blocks (inf for sky and beyond ``VIEW_DISTANCE``), and a
        number for the (block, face) hit, the same from every pose (-1 for sky).
    """
    size = check_size(frame_size)
    depth, ids = np.empty(size, np.float64), np.empty(size, np.int64)
    eye, basis = _camera(pose)
    _hits(terrain.blocks, terrain.tile_top, eye, basis, _HALF, depth, ids)
    return depth, ids
