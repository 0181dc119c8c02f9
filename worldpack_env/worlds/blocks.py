"""What Minecraft's blocks are to a walker, by name, and the walkable surface of a surveyed box of blocks.

Names are those of Minecraft 1.11 (what MineRL 0.4 tells) or, called modern here, of 1.16 (MineRL 1.0 and MineStudio): ``grass`` is a block of
earth in the one and a plant in the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldpack_env.worlds import Surface

OPEN, LIQUID, PARTIAL, LEAF, TRUNK, FULL = range(6)
"""A body passes; swims; is stopped by less or more than a block, or is hurt; leaves; trunks; a whole block (every name not listed)."""

_OPEN: Final = (
    "air tallgrass deadbush yellow_flower red_flower brown_mushroom red_mushroom double_plant reeds sapling vine snow_layer torch "
    "redstone_torch unlit_redstone_torch redstone_wire wheat carrots potatoes beetroots melon_stem pumpkin_stem nether_wart rail golden_rail "
    "detector_rail activator_rail lever stone_button wooden_button standing_sign wall_sign tripwire tripwire_hook stone_pressure_plate "
    "wooden_pressure_plate standing_banner wall_banner"
)
_LIQUID: Final = "water flowing_water"
_PARTIAL: Final = (
    "lava flowing_lava fire magma cactus web ladder waterlily carpet cake chest ender_chest trapped_chest bed wooden_door spruce_door birch_door "
    "jungle_door acacia_door dark_oak_door iron_door trapdoor iron_trapdoor fence spruce_fence birch_fence jungle_fence acacia_fence "
    "dark_oak_fence nether_brick_fence fence_gate spruce_fence_gate birch_fence_gate jungle_fence_gate acacia_fence_gate dark_oak_fence_gate "
    "cobblestone_wall glass_pane stained_glass_pane iron_bars stone_slab stone_slab2 wooden_slab purpur_slab oak_stairs stone_stairs "
    "brick_stairs stone_brick_stairs nether_brick_stairs sandstone_stairs spruce_stairs birch_stairs jungle_stairs quartz_stairs acacia_stairs "
    "dark_oak_stairs red_sandstone_stairs purpur_stairs enchanting_table brewing_stand cauldron hopper anvil skull flower_pot cocoa "
    "chorus_plant chorus_flower daylight_detector end_rod"
)
_KINDS: Final = {
    **dict.fromkeys(_OPEN.split(), OPEN),
    **dict.fromkeys(_LIQUID.split(), LIQUID),
    **dict.fromkeys(_PARTIAL.split(), PARTIAL),
    **dict.fromkeys(("leaves", "leaves2"), LEAF),
    **dict.fromkeys(("log", "log2"), TRUNK),
}
_MODERN_OPEN: Final = (
    "air cave_air void_air grass tall_grass fern large_fern dead_bush dandelion poppy blue_orchid allium azure_bluet oxeye_daisy cornflower "
    "lily_of_the_valley wither_rose sunflower lilac rose_bush peony sugar_cane snow wall_torch redstone_wall_torch powered_rail repeater comparator "
    "crimson_roots warped_roots nether_sprouts soul_torch soul_wall_torch string"
)
_MODERN_LIQUID: Final = "water bubble_column seagrass tall_seagrass kelp kelp_plant"
_MODERN_PARTIAL: Final = "lava soul_fire cobweb lily_pad bamboo sweet_berry_bush campfire bell lantern chain lectern scaffolding sea_pickle"
_MODERN: Final = {
    **{name: kind for name, kind in _KINDS.items() if name not in ("log", "log2", "leaves", "leaves2")},
    **dict.fromkeys(_MODERN_OPEN.split(), OPEN),
    **dict.fromkeys(_MODERN_LIQUID.split(), LIQUID),
    **dict.fromkeys(_MODERN_PARTIAL.split(), PARTIAL),
}
_MODERN_ENDS: Final = (
    (("_sapling", "_tulip", "_sign", "_button", "_pressure_plate", "_banner", "_rail", "_torch"), OPEN),
    (("_slab", "_stairs", "_fence", "_fence_gate", "_wall", "_door", "_trapdoor", "_pane", "_bed", "_carpet", "_head", "_skull"), PARTIAL),
    (("_leaves",), LEAF),
    (("_log", "_wood"), TRUNK),
)


def kind_of(name: str, *, modern: bool = False) -> int:
    """What a block is to a walker; names that are not known are whole blocks, which no way leads through.

    Args:
        name: with or without ``minecraft:``.
        modern: the name is of Minecraft 1.16, not 1.11.
    """
    plain = name.replace(".", ":").rpartition(":")[2]
    if not modern:
        return _KINDS.get(plain, FULL)
    if plain in _MODERN:
        return _MODERN[plain]
    return next((kind for ends, kind in _MODERN_ENDS if plain.endswith(ends)), FULL)


@dataclass(frozen=True)
class SurveyedBlocks:
    """A box of blocks of a world that stands still."""

    corner: tuple[int, int, int]
    """Lowest corner, in blocks."""
    kinds: NDArray[np.uint8]
    """``(X, Y, Z)`` what each block is to a walker."""

    @classmethod
    def from_names(cls, corner: Sequence[int], palette: Sequence[str], ids: NDArray[np.uint16], *, modern: bool = False) -> SurveyedBlocks:
        """Makes it of numbers ``(Y, Z, X)`` into a list of names.

        Raises:
            ValueError: if a number has no name.
        """
        if ids.size == 0 or int(ids.max()) >= len(palette):
            raise ValueError(f"The survey holds block {int(ids.max()) if ids.size else None} of a palette of {len(palette)}.")
        kinds = np.array([kind_of(name, modern=modern) for name in palette], np.uint8)[ids.transpose(2, 0, 1)]
        return cls((int(corner[0]), int(corner[1]), int(corner[2])), np.ascontiguousarray(kinds))

    def surface(self) -> Surface:
        """The walkable top: the highest block of each column that is neither open nor of a tree, with two open blocks above it."""
        kinds = self.kinds
        count = kinds.shape[1]
        # Trees are left out as the embedded world leaves out its canopies; where a trunk stands the two blocks above ground are not open.
        ground = (kinds == FULL) | (kinds == LIQUID) | (kinds == PARTIAL)
        top = count - 1 - np.argmax(ground[:, ::-1], axis=1)
        x, z = np.indices(top.shape)
        clear = [(top + up < count) & (kinds[x, np.minimum(top + up, count - 1), z] == OPEN) for up in (1, 2)]
        walkable = ground.any(axis=1) & (kinds[x, top, z] == FULL) & clear[0] & clear[1]
        heights = (self.corner[1] + top + 1).astype(np.int16)
        return Surface(heights, walkable, (self.corner[0], self.corner[2]))

    def solid(self, corner: ArrayLike, size: tuple[int, int, int]) -> NDArray[np.bool_] | None:
        """Which blocks of a box from ``corner (3,)`` no body can enter; None where the box leaves what was surveyed."""
        low = np.asarray(corner, np.int64) - np.array(self.corner)
        high = low + np.array(size)
        if (low < 0).any() or (high > np.array(self.kinds.shape)).any():
            return None
        part = self.kinds[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
        solid: NDArray[np.bool_] = (part != OPEN) & (part != LIQUID)
        return solid
