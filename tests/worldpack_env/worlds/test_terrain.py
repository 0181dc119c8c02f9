"""The embedded world's ground: the same for the same seed, walkable where it says so, and never without something to recognise."""

import numpy as np
import pytest
from numpy.typing import NDArray

from worldpack_env.worlds import terrain as t

SEEDS = (0, 1, 7, 2**40)


@pytest.fixture(scope="module", params=SEEDS)
def built(request: pytest.FixtureRequest) -> t.Terrain:
    return t.load_terrain(request.param)


def columns(built: t.Terrain) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """x, z and feet height of every walkable column, in grid units."""
    x, z = np.nonzero(built.surface.walkable)
    return x, z, built.surface.heights[x, z].astype(np.int64)


def test_a_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    one, two, other = t.build_terrain(5), t.build_terrain(5), t.build_terrain(6)
    assert one is not two
    for name in ("blocks", "biome", "column_top", "tile_top", "fine_top", "cells"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    assert np.array_equal(one.surface.heights, two.surface.heights)
    assert np.array_equal(one.surface.walkable, two.surface.walkable)
    assert (one.blocks != other.blocks).mean() > 0.02


def test_terrains_are_shared_and_read_only() -> None:
    one = t.load_terrain(5)
    assert t.load_terrain(5) is one
    for array in (one.blocks, one.cells, one.column_top, one.surface.heights, one.surface.walkable):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_named(seed: int) -> None:
    with pytest.raises(ValueError, match=r"seed is .*expected an integer"):
        t.build_terrain(seed)


def test_shapes(built: t.Terrain) -> None:
    assert built.blocks.shape == (256, 48, 256)
    assert built.blocks.dtype == np.uint8
    assert built.blocks.max() < t.BLOCK_KINDS
    assert built.surface.heights.shape == built.surface.walkable.shape == (256, 256)
    assert built.surface.heights.dtype == np.int16
    assert built.surface.origin == (-128, -128)


def test_walkable_columns_have_ground_and_room(built: t.Terrain) -> None:
    x, z, h = columns(built)
    below = built.blocks[x, h - 1, z]
    assert (below != t.AIR).all()
    assert (below != t.WATER).all()
    assert (built.blocks[x, h, z] == t.AIR).all()
    assert (built.blocks[x, h + 1, z] == t.AIR).all()


def test_water_and_the_margin_are_not_walkable(built: t.Terrain) -> None:
    wet = (built.blocks == t.WATER).any(axis=1)
    assert not (wet & built.surface.walkable).any()
    assert (built.surface.heights[wet] == t.WATER_LEVEL).all()
    inside = np.zeros((256, 256), np.bool_)
    inside[t.MARGIN : -t.MARGIN, t.MARGIN : -t.MARGIN] = True
    assert not (built.surface.walkable & ~inside).any()


def test_canopies_do_not_count_as_ground(built: t.Terrain) -> None:
    x, z, h = columns(built)
    leaves = np.isin(built.blocks[x, built.column_top[x, z], z], (t.OAK_LEAVES, t.SPRUCE_LEAVES, t.ACACIA_LEAVES, t.PINK_LEAVES))
    assert leaves.any(), "no walkable column below a tree"
    assert (built.column_top[x, z][leaves] >= h[leaves] + 2).all()


def test_most_of_a_world_can_be_walked_and_mostly_by_single_steps(built: t.Terrain) -> None:
    walkable, heights = built.surface.walkable, built.surface.heights.astype(np.int64)
    assert 0.5 < walkable.mean() < 0.95
    both = walkable[1:] & walkable[:-1]
    climb = np.abs(np.diff(heights, axis=0))[both]
    assert (climb <= 1).mean() > 0.95
    assert (climb >= 2).any(), "no cliff anywhere"


def test_something_to_recognise_is_never_far(built: t.Terrain) -> None:
    made = np.isin(built.blocks, (t.PLANKS, t.BRICK, t.COBBLE)) | (built.blocks >= t.PAINT)
    marks = np.argwhere(made.any(axis=1))
    x, z, _ = columns(built)
    places = np.stack([x, z], axis=1)[:: max(len(x) // 400, 1)]
    nearest = np.sqrt(((places[:, None] - marks[None]) ** 2).sum(axis=2).min(axis=1))
    assert np.quantile(nearest, 0.95) <= 20


def test_worlds_differ_in_biome_and_have_trees_and_every_colour() -> None:
    worlds = [t.load_terrain(seed) for seed in SEEDS]
    assert {int(b) for w in worlds for b in np.unique(w.biome)} == {t.PLAINS, t.DESERT, t.TAIGA, t.SAVANNA, t.MESA}
    for w in worlds:
        present = set(np.unique(w.blocks).tolist())
        assert len(np.unique(w.biome)) >= 3
        assert set(range(t.PAINT, t.PAINT + t.PAINTS)) <= present
        assert t.WATER in present


def test_what_the_ray_caster_reads_agrees_with_the_blocks(built: t.Terrain) -> None:
    cells = built.cells.reshape(258, 50, 258)
    inner = cells[1:-1, 1:-1, 1:-1]
    shell = np.ones(cells.shape, np.bool_)
    shell[1:-1, 1:-1, 1:-1] = False
    assert (cells[shell] == t.OUTSIDE).all()
    assert np.array_equal(np.where(inner == t.OPEN, t.AIR, inner), built.blocks)
    y = np.arange(t.SIZE_Y)[None, :, None]
    tops = built.tile_top.repeat(t.TILE, 0).repeat(t.TILE, 1)
    assert np.array_equal(inner == t.OPEN, np.broadcast_to(y > tops[:, None, :], inner.shape))
    filled = (built.blocks != t.AIR) * np.arange(t.SIZE_Y)[None, :, None]
    assert np.array_equal(built.column_top, filled.max(axis=1))
    assert np.array_equal(built.fine_top.repeat(t.FINE, 0).repeat(t.FINE, 1) >= built.column_top, np.ones((256, 256), np.bool_))
