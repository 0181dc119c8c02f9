"""Seeded block terrain for the embedded world: hills, biomes, ponds, trees, villages and coloured landmarks.

A terrain is a bounded ``(256, 48, 256) uint8`` grid of block ids, indexed ``[x, y, z]`` and centred on the origin: cell ``[i, j, k]`` fills
x in [i - 128, i - 127), y in [j, j + 1), z in [k - 128, k - 127). All randomness is a stateless integer hash of (seed, position, salt), so a
seed gives the same bytes on every machine and in any order of evaluation.

The landmarks are not decoration: the project is about finding one's way back, so every place should show something one can recognise.

numba keeps compiled functions on disk and does not notice when a constant of another file changes: after a change of a constant here, touch
``raycast.py`` and ``voxel.py`` as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from worldpack_env.worlds import Surface

SIZE_X: Final = 256
SIZE_Y: Final = 48
SIZE_Z: Final = 256
ORIGIN: Final = (-128, -128)
"""World (x, z) of the corner of column [0, 0]."""
MARGIN: Final = 8
"""Columns along the edge that no player can enter; border cliffs stand there."""
WATER_LEVEL: Final = 13
"""Height of the water surface in blocks; the top water cell is one below."""
TILE: Final = 16
"""Side of the tiles of :attr:`Terrain.tile_top`, in columns."""
FINE: Final = 4
"""Side of the tiles of :attr:`Terrain.fine_top`, in columns."""
PAD_Y: Final = SIZE_Y + 2
PAD_Z: Final = SIZE_Z + 2
OUTSIDE: Final = 253
"""Mark in :attr:`Terrain.cells` of the layer about the grid."""
OPEN: Final = 255
"""Mark in :attr:`Terrain.cells` of air above everything in its tile."""

AIR: Final = 0
STONE: Final = 1
DIRT: Final = 2
GRASS: Final = 3
SAND: Final = 4
SNOW: Final = 5
DRY_GRASS: Final = 6
TERRACOTTA: Final = 7
WATER: Final = 8
OAK_LOG: Final = 9
SPRUCE_LOG: Final = 10
ACACIA_LOG: Final = 11
OAK_LEAVES: Final = 12
SPRUCE_LEAVES: Final = 13
ACACIA_LEAVES: Final = 14
CACTUS: Final = 15
PLANKS: Final = 16
BRICK: Final = 17
COBBLE: Final = 18
GRAVEL: Final = 19
PINK_LEAVES: Final = 20
PAINT: Final = 21
"""First of the painted blocks, in the order of ``PAINT_NAMES``."""
PAINT_NAMES: Final = ("red", "orange", "yellow", "lime", "cyan", "blue", "purple", "magenta", "white", "black")
PAINTS: Final = 10
BLOCK_KINDS: Final = PAINT + PAINTS
BLOCK_NAMES: Final = (
    "air", "stone", "dirt", "grass_block", "sand", "snow_block", "dry_grass_block", "terracotta", "water", "oak_log", "spruce_log", "acacia_log",
    "oak_leaves", "spruce_leaves", "acacia_leaves", "cactus", "oak_planks", "bricks", "cobblestone", "gravel", "pink_leaves",
    *(f"{name}_concrete" for name in PAINT_NAMES),
)  # fmt: skip
"""Name of every kind of block: Minecraft's where it has such a block."""

PLAINS: Final = 0
DESERT: Final = 1
TAIGA: Final = 2
SAVANNA: Final = 3
MESA: Final = 4

_VILLAGES: Final = 4
_LANDMARK_CELL: Final = 14
_TREE_CELL: Final = 6


@dataclass(frozen=True)
class Terrain:
    """One built world; all arrays are read-only because every world with this seed shares them."""

    seed: int
    blocks: NDArray[np.uint8]
    """``(256, 48, 256)`` block ids ``[x, y, z]``."""
    biome: NDArray[np.uint8]
    """``(256, 256)`` biome of each column ``[x, z]``."""
    column_top: NDArray[np.int16]
    """``(256, 256)`` y of the highest block that is not air."""
    tile_top: NDArray[np.int16]
    """``(16, 16)`` maximum of ``column_top`` over ``TILE`` x ``TILE`` columns; the ray caster jumps over empty air with it."""
    fine_top: NDArray[np.int16]
    """``(64, 64)`` maximum of ``column_top`` over ``FINE`` x ``FINE`` columns."""
    cells: NDArray[np.uint8]
    """``(258 * 50 * 258,)`` the blocks for the ray caster: flat, with one layer ``OUTSIDE`` about the grid and with ``OPEN`` marks in the air."""
    surface: Surface


@njit(cache=True, inline="always")
def _hash01(seed: int, a: int, b: int, salt: int) -> float:
    """Uniform number in [0, 1) of four integers (the finaliser of splitmix64, Steele et al. 2014)."""
    h = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(a) * np.uint64(0xD1B54A32D192ED03)
    h = (h ^ (h >> np.uint64(32))) + np.uint64(b) * np.uint64(0xABC98388FB8FAC03) + np.uint64(salt) * np.uint64(0x8CB92BA72F3D8DD7)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    h = h ^ (h >> np.uint64(31))
    return float(h >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(cache=True)
def _noise(seed: int, x: float, z: float, salt: int) -> float:
    """Smooth value noise in [-1, 1] at a point in lattice units."""
    fx, fz = math.floor(x), math.floor(z)
    ix, iz = int(fx), int(fz)
    u, v = x - fx, z - fz
    u = u * u * u * (u * (u * 6.0 - 15.0) + 10.0)
    v = v * v * v * (v * (v * 6.0 - 15.0) + 10.0)
    a = _hash01(seed, ix, iz, salt)
    b = _hash01(seed, ix + 1, iz, salt)
    c = _hash01(seed, ix, iz + 1, salt)
    d = _hash01(seed, ix + 1, iz + 1, salt)
    top = a + (b - a) * u
    return 2.0 * (top + (c + (d - c) * u - top) * v) - 1.0


@njit(cache=True)
def _raw_height(seed: int, x: int, z: int) -> float:
    """Height of the natural ground at a column, in blocks, before villages and the border."""
    height = 16.2 + 5.0 * _noise(seed, x / 68.0, z / 68.0, 1) + 2.4 * _noise(seed, x / 27.0, z / 27.0, 2)
    height += 0.5 * _noise(seed, x / 10.0, z / 10.0, 3)
    # Plateaus: the width of their flank varies from cliff to ramp, so that they block the way in places but can be climbed somewhere.
    plateau = _noise(seed, x / 44.0, z / 44.0, 4)
    width = 0.05 + 0.22 * (1.0 + _noise(seed, x / 30.0, z / 30.0, 5))
    s = min(max((plateau - 0.12) / width, 0.0), 1.0)
    return height + 5.0 * s * s * (3.0 - 2.0 * s)


@njit(cache=True)
def _ground(seed: int, height: NDArray[np.int16], biome: NDArray[np.uint8], village: NDArray[np.int64]) -> None:
    """Fills ground heights, biomes and village places ``(_VILLAGES, 3)`` of (x, z, height)."""
    for n in range(_VILLAGES):
        # The first stands near the spawn, the others in three of the four quarters.
        reach, mx, mz = 16.0, 0.0, 0.0
        if n > 0:
            quarter = n + int(4.0 * _hash01(seed, 0, 0, 10))
            mx = 64.0 if quarter % 2 == 0 else -64.0
            mz = 64.0 if (quarter // 2) % 2 == 0 else -64.0
            reach = 30.0
        vx = int(mx + reach * (2.0 * _hash01(seed, n, 0, 11) - 1.0)) + SIZE_X // 2
        vz = int(mz + reach * (2.0 * _hash01(seed, n, 0, 12) - 1.0)) + SIZE_Z // 2
        village[n, 0], village[n, 1] = vx, vz
        village[n, 2] = max(int(_raw_height(seed, vx, vz)), WATER_LEVEL + 1)
    for x in range(SIZE_X):
        for z in range(SIZE_Z):
            h = _raw_height(seed, x, z)
            for n in range(_VILLAGES):
                dx, dz = x - village[n, 0], z - village[n, 1]
                d = math.sqrt(float(dx * dx + dz * dz))
                if d < 24.0:
                    s = min(max((24.0 - d) / 10.0, 0.0), 1.0)
                    s = s * s * (3.0 - 2.0 * s)
                    h += (village[n, 2] + 0.5 - h) * s
            edge = min(min(x, z), min(SIZE_X - 1 - x, SIZE_Z - 1 - z))
            if edge < MARGIN:
                h = max(h, WATER_LEVEL + 1.0) + 5.0 + 1.1 * (MARGIN - edge) + 3.0 * _noise(seed, x / 9.0, z / 9.0, 6)
            height[x, z] = min(max(int(math.floor(h)), 6), SIZE_Y - 6)
            wobble = 0.05 * _noise(seed, x / 7.0, z / 7.0, 7)
            warm = _noise(seed, x / 62.0 + 0.5, z / 62.0, 8) + wobble
            wet = _noise(seed, x / 62.0, z / 62.0 + 0.5, 9) + wobble
            kind = PLAINS
            if warm > 0.2:
                kind = DESERT if wet < 0.05 else SAVANNA
            elif warm < -0.2:
                kind = TAIGA
            elif wet < -0.25:
                kind = MESA
            biome[x, z] = kind


@njit(cache=True)
def _fill(blocks: NDArray[np.uint8], height: NDArray[np.int16], biome: NDArray[np.uint8]) -> None:
    """Fills ground and water blocks up to the heights."""
    for x in range(SIZE_X):
        for z in range(SIZE_Z):
            h, kind = int(height[x, z]), biome[x, z]
            top, under = GRASS, DIRT
            if kind == DESERT:
                top, under = SAND, SAND
            elif kind == TAIGA:
                top = SNOW
            elif kind == SAVANNA:
                top = DRY_GRASS
            elif kind == MESA:
                top, under = TERRACOTTA, TERRACOTTA
            if h <= WATER_LEVEL and kind != TAIGA:
                top = SAND
            for y in range(h - 4):
                blocks[x, y, z] = STONE
            for y in range(h - 4, h - 1):
                blocks[x, y, z] = under
            blocks[x, h - 1, z] = top
            for y in range(h, WATER_LEVEL):
                blocks[x, y, z] = WATER


@njit(cache=True)
def _level(blocks: NDArray[np.uint8], height: NDArray[np.int16], taken: NDArray[np.bool_], x0: int, z0: int, x1: int, z1: int, limit: int) -> int:
    """Claims columns [x0, x1) x [z0, z1): levels the ground there and gives its height, or -1 where it is taken, wet or too steep."""
    if x0 < MARGIN + 2 or z0 < MARGIN + 2 or x1 > SIZE_X - MARGIN - 2 or z1 > SIZE_Z - MARGIN - 2:
        return -1
    low, high = SIZE_Y, 0
    for x in range(x0 - 1, x1 + 1):
        for z in range(z0 - 1, z1 + 1):
            if taken[x, z]:
                return -1
            low, high = min(low, int(height[x, z])), max(high, int(height[x, z]))
    if high - low > limit or low < WATER_LEVEL:
        return -1
    level = int(height[(x0 + x1) // 2, (z0 + z1) // 2])
    for x in range(x0, x1):
        for z in range(z0, z1):
            h = int(height[x, z])
            top = blocks[x, h - 1, z]
            for y in range(h, level):
                blocks[x, y, z] = top
            for y in range(level, h):
                blocks[x, y, z] = AIR
            blocks[x, level - 1, z] = top
            height[x, z] = level
            taken[x, z] = True
    return level


@njit(cache=True)
def _landmark(
    blocks: NDArray[np.uint8],
    height: NDArray[np.int16],
    taken: NDArray[np.bool_],
    seed: int,
    kind: int,
    cx: int,
    cz: int,
    salt: int,
) -> bool:
    """Builds one landmark of ``kind`` 0-8 with its low corner at (cx, cz); False where the place does not suit."""
    a = PAINT + int(PAINTS * _hash01(seed, cx, cz, salt))
    b = PAINT + (a - PAINT + 1 + int((PAINTS - 1) * _hash01(seed, cx, cz, salt + 1))) % PAINTS
    turn = _hash01(seed, cx, cz, salt + 2) < 0.5
    size = int(3.0 * _hash01(seed, cx, cz, salt + 3))
    if kind == 0:  # striped pillar
        g = _level(blocks, height, taken, cx, cz, cx + 1, cz + 1, 4)
        if g < 0:
            return False
        for y in range(5 + size):
            blocks[cx, g + y, cz] = a if (y // 2) % 2 == 0 else b
    elif kind == 1:  # thick pillar with a cap
        g = _level(blocks, height, taken, cx, cz, cx + 2, cz + 2, 4)
        if g < 0:
            return False
        for x in range(cx, cx + 2):
            for z in range(cz, cz + 2):
                for y in range(4 + size):
                    blocks[x, g + y, z] = a
                blocks[x, g + 4 + size, z] = b
    elif kind == 2:  # arch to walk through
        wx, wz = (5, 1) if turn else (1, 5)
        g = _level(blocks, height, taken, cx, cz, cx + wx, cz + wz, 3)
        if g < 0:
            return False
        for n in range(5):
            x, z = (cx + n, cz) if turn else (cx, cz + n)
            if n == 0 or n == 4:
                for y in range(4):
                    blocks[x, g + y, z] = a
            blocks[x, g + 4, z] = b
    elif kind == 3:  # cube with a belt
        g = _level(blocks, height, taken, cx, cz, cx + 3, cz + 3, 4)
        if g < 0:
            return False
        for x in range(cx, cx + 3):
            for z in range(cz, cz + 3):
                for y in range(3):
                    blocks[x, g + y, z] = b if y == 1 and size > 0 else a
    elif kind == 4:  # wall with posts
        length = 5 + size
        wx, wz = (length, 1) if turn else (1, length)
        g = _level(blocks, height, taken, cx, cz, cx + wx, cz + wz, 3)
        if g < 0:
            return False
        for n in range(length):
            x, z = (cx + n, cz) if turn else (cx, cz + n)
            post = n == 0 or n == length - 1
            for y in range(4 if post else 3):
                blocks[x, g + y, z] = b if post else a
    elif kind == 5:  # house with a door
        wx, wz = 5 + size % 2, 5 + size // 2
        g = _level(blocks, height, taken, cx, cz, cx + wx, cz + wz, 3)
        if g < 0:
            return False
        pick = _hash01(seed, cx, cz, salt + 4)
        wall = PLANKS if pick < 0.3 else BRICK if pick < 0.5 else COBBLE if pick < 0.65 else b
        for x in range(cx, cx + wx):
            for z in range(cz, cz + wz):
                blocks[x, g - 1, z] = PLANKS
                ring = x == cx or x == cx + wx - 1 or z == cz or z == cz + wz - 1
                for y in range(4):
                    blocks[x, g + y, z] = wall if ring else AIR
                blocks[x, g + 4, z] = a
                if not ring:
                    blocks[x, g + 5, z] = a
        side = int(4.0 * _hash01(seed, cx, cz, salt + 5))
        mx, mz = cx + wx // 2, cz + wz // 2
        for _ in range(2):
            if side != 0:
                blocks[cx, g + 1, mz] = AIR
            if side != 2:
                blocks[mx, g + 1, cz] = AIR
        door_x = cx if side == 0 else cx + wx - 1 if side == 1 else mx
        door_z = cz if side == 2 else cz + wz - 1 if side == 3 else mz
        blocks[door_x, g, door_z] = AIR
        blocks[door_x, g + 1, door_z] = AIR
    elif kind == 6:  # stepped pyramid
        g = _level(blocks, height, taken, cx, cz, cx + 5, cz + 5, 4)
        if g < 0:
            return False
        for y in range(3):
            for x in range(cx + y, cx + 5 - y):
                for z in range(cz + y, cz + 5 - y):
                    blocks[x, g + y, z] = b if y == 1 else a
    elif kind == 7:  # banner on a pole
        g = _level(blocks, height, taken, cx, cz, cx + 1, cz + 1, 4)
        if g < 0:
            return False
        for y in range(7):
            blocks[cx, g + y, cz] = b
        for n in range(1, 4):
            for y in range(4, 7):
                blocks[cx + (n if turn else 0), g + y, cz + (0 if turn else n)] = a
    else:  # tower with battlements
        g = _level(blocks, height, taken, cx, cz, cx + 3, cz + 3, 4)
        if g < 0:
            return False
        for x in range(3):
            for z in range(3):
                for y in range(6 + size):
                    blocks[cx + x, g + y, cz + z] = b if y >= 4 + size else a
                if (x + z) % 2 == 0 and not (x == 1 and z == 1):
                    blocks[cx + x, g + 6 + size, cz + z] = a
    return True


@njit(cache=True)
def _canopy(blocks: NDArray[np.uint8], cx: int, y: int, cz: int, radius: int, cut: int, leaf: int) -> None:
    """One layer of leaves: a square of ``radius`` whose corners beyond |dx| + |dz| > ``cut`` are missing; only air becomes leaf."""
    for dx in range(-radius, radius + 1):
        for dz in range(-radius, radius + 1):
            if abs(dx) + abs(dz) <= cut and blocks[cx + dx, y, cz + dz] == AIR:
                blocks[cx + dx, y, cz + dz] = leaf


@njit(cache=True)
def _tree(blocks: NDArray[np.uint8], g: int, kind: int, cx: int, cz: int, size: int, pick: float) -> None:
    """Plants the tree of a biome on ground height ``g``; leaves start three blocks above the ground, so a player fits below and can jump."""
    if kind == DESERT:
        for y in range(2 + size):
            blocks[cx, g + y, cz] = CACTUS
        return
    if kind == TAIGA:
        for y in range(6 + size):
            blocks[cx, g + y, cz] = SPRUCE_LOG
        y = g + 3
        for n in range(3 + size):
            _canopy(blocks, cx, y, cz, 2 if n % 2 == 0 else 1, 3 if n % 2 == 0 else 1, SPRUCE_LEAVES)
            y += 1
        _canopy(blocks, cx, y, cz, 1, 1, SPRUCE_LEAVES)
        _canopy(blocks, cx, y + 1, cz, 0, 0, SPRUCE_LEAVES)
        return
    if kind == SAVANNA or kind == MESA:
        for y in range(4 + size):
            blocks[cx, g + y, cz] = ACACIA_LOG
        if kind == SAVANNA:
            _canopy(blocks, cx, g + 4 + size, cz, 3, 4, ACACIA_LEAVES)
            _canopy(blocks, cx, g + 5 + size, cz, 1, 2, ACACIA_LEAVES)
        else:
            _canopy(blocks, cx, g + 4 + size, cz, 1, 1, ACACIA_LEAVES)
        return
    leaf = PINK_LEAVES if pick < 0.12 else OAK_LEAVES
    for y in range(5 + size):
        blocks[cx, g + y, cz] = OAK_LOG
    for y in range(3, 5 + size):
        _canopy(blocks, cx, g + y, cz, 2, 3, leaf)
    _canopy(blocks, cx, g + 5 + size, cz, 1, 2, leaf)
    _canopy(blocks, cx, g + 6 + size, cz, 1, 1, leaf)


@njit(cache=True)
def _populate(
    seed: int,
    blocks: NDArray[np.uint8],
    height: NDArray[np.int16],
    biome: NDArray[np.uint8],
    village: NDArray[np.int64],
    taken: NDArray[np.bool_],
) -> None:
    """Builds villages, landmarks and trees on filled ground."""
    for n in range(_VILLAGES):
        vx, vz = village[n, 0], village[n, 1]
        first = _hash01(seed, n, 0, 20)
        for x in range(vx - 5, vx + 6):
            for z in range(vz - 5, vz + 6):
                if (x - vx) ** 2 + (z - vz) ** 2 <= 22:
                    h = int(height[x, z])
                    if h >= WATER_LEVEL:
                        blocks[x, h - 1, z] = GRAVEL
        _landmark(blocks, height, taken, seed, 8 if first < 0.5 else 1, vx - 1, vz - 1, 21 + 40 * n)
        homes = 6 + int(3.0 * _hash01(seed, n, 1, 20))
        for m in range(homes):
            angle = 2.0 * math.pi * (m + first) / homes
            # Rounded at once: the last bit of a machine's sine must not decide a block.
            ring = 11.0 + 3.0 * _hash01(seed, n, m, 22)
            x = vx + int(math.floor(ring * math.cos(angle) + 0.5)) - 2
            z = vz + int(math.floor(ring * math.sin(angle) + 0.5)) - 2
            kind = 5 if _hash01(seed, n, m, 23) < 0.7 else int(9.0 * _hash01(seed, n, m, 24))
            _landmark(blocks, height, taken, seed, kind, x, z, 200 + 10 * m)
        # The plaza stays open: nothing else may be put on it.
        for x in range(vx - 5, vx + 6):
            for z in range(vz - 5, vz + 6):
                taken[x, z] = True
    for i in range(SIZE_X // _LANDMARK_CELL):
        for k in range(SIZE_Z // _LANDMARK_CELL):
            for attempt in range(4):
                salt = 400 + 20 * attempt
                x = i * _LANDMARK_CELL + int(10.0 * _hash01(seed, i, k, salt)) + 1
                z = k * _LANDMARK_CELL + int(10.0 * _hash01(seed, i, k, salt + 1)) + 1
                if _landmark(blocks, height, taken, seed, int(9.0 * _hash01(seed, i, k, salt + 2)), x, z, salt + 3):
                    break
    for i in range(SIZE_X // _TREE_CELL):
        for k in range(SIZE_Z // _TREE_CELL):
            x = i * _TREE_CELL + int(_TREE_CELL * _hash01(seed, i, k, 600))
            z = k * _TREE_CELL + int(_TREE_CELL * _hash01(seed, i, k, 601))
            if x < 4 or z < 4 or x >= SIZE_X - 4 or z >= SIZE_Z - 4:
                continue
            kind, g = int(biome[x, z]), int(height[x, z])
            grove = _noise(seed, x / 30.0, z / 30.0, 602)
            chance = 0.12
            if kind == PLAINS:
                chance = 0.2 + (0.5 if grove > 0.1 else 0.0)
            elif kind == TAIGA:
                chance = 0.3 + (0.4 if grove > 0.0 else 0.0)
            elif kind == SAVANNA:
                chance = 0.25
            if g < WATER_LEVEL or g > SIZE_Y - 12 or _hash01(seed, i, k, 603) >= chance:
                continue
            free = True
            for dx in range(-1, 2):
                for dz in range(-1, 2):
                    if taken[x + dx, z + dz] or abs(height[x + dx, z + dz] - g) > 2:
                        free = False
            if free:
                taken[x, z] = True
                _tree(blocks, g, kind, x, z, int(3.0 * _hash01(seed, i, k, 604)), _hash01(seed, i // 3, k // 3, 605))


@njit(cache=True)
def _summarise(
    blocks: NDArray[np.uint8],
    height: NDArray[np.int16],
    walkable: NDArray[np.bool_],
    column_top: NDArray[np.int16],
    tile_top: NDArray[np.int16],
) -> None:
    """Fills what planning and ray casting need; raises ``height`` to the water surface over water."""
    for x in range(SIZE_X):
        for z in range(SIZE_Z):
            top = SIZE_Y - 1
            while blocks[x, top, z] == AIR:
                top -= 1
            column_top[x, z] = top
            tile_top[x // TILE, z // TILE] = max(tile_top[x // TILE, z // TILE], top)
            h = int(height[x, z])
            free = blocks[x, h, z] == AIR and blocks[x, h + 1, z] == AIR
            inside = MARGIN <= x < SIZE_X - MARGIN and MARGIN <= z < SIZE_Z - MARGIN
            walkable[x, z] = free and inside
            height[x, z] = max(h, WATER_LEVEL)


@njit(cache=True)
def _mark(blocks: NDArray[np.uint8], tile_top: NDArray[np.int16], cells: NDArray[np.uint8]) -> None:
    """Fills ``cells (X + 2, Y + 2, Z + 2)``, given full of ``OUTSIDE``."""
    for x in range(SIZE_X):
        for y in range(SIZE_Y):
            for k in range(SIZE_Z // TILE):
                mark = AIR
                if y > tile_top[x // TILE, k]:
                    mark = OPEN
                for z in range(k * TILE, k * TILE + TILE):
                    cells[x + 1, y + 1, z + 1] = mark if mark != AIR else blocks[x, y, z]


def build_terrain(seed: int) -> Terrain:
    """Builds world ``seed`` anew (about 0.02 s); :func:`load_terrain` is the cached form.

    Raises:
        ValueError: if the seed is not in [0, 2**63).
    """
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed is {seed}, expected an integer in [0, 2**63).")
    blocks = np.zeros((SIZE_X, SIZE_Y, SIZE_Z), np.uint8)
    height = np.zeros((SIZE_X, SIZE_Z), np.int16)
    biome = np.zeros((SIZE_X, SIZE_Z), np.uint8)
    village = np.zeros((_VILLAGES, 3), np.int64)
    taken = np.zeros((SIZE_X, SIZE_Z), np.bool_)
    walkable = np.zeros((SIZE_X, SIZE_Z), np.bool_)
    column_top = np.zeros((SIZE_X, SIZE_Z), np.int16)
    tile_top = np.zeros((SIZE_X // TILE, SIZE_Z // TILE), np.int16)
    _ground(seed, height, biome, village)
    _fill(blocks, height, biome)
    _populate(seed, blocks, height, biome, village, taken)
    _summarise(blocks, height, walkable, column_top, tile_top)
    fine_top = column_top.reshape(SIZE_X // FINE, FINE, SIZE_Z // FINE, FINE).max(axis=(1, 3))
    cells = np.full((SIZE_X + 2, PAD_Y, PAD_Z), OUTSIDE, np.uint8)
    _mark(blocks, tile_top, cells)
    for array in (blocks, height, biome, walkable, column_top, tile_top, fine_top, cells):
        array.flags.writeable = False
    return Terrain(seed, blocks, biome, column_top, tile_top, fine_top, cells.reshape(-1), Surface(height, walkable, ORIGIN))


@lru_cache(maxsize=8)
def load_terrain(seed: int) -> Terrain:
    """World ``seed``; the last few are kept, so several engines on one seed share it."""
    return build_terrain(seed)
