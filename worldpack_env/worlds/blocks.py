"""What Minecraft's blocks are to a walker, by name, and the walkable surface of a surveyed box of blocks.

Names are those of Minecraft 1.11 (Malmo's), which is what MineRL 0.4 tells.
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


def kind_of(name: str) -> int:
    """What the block ``name`` is to a walker; names that are not known are whole blocks, which no way leads through."""
    return _KINDS.get(name.removeprefix("minecraft:"), FULL)


@dataclass(frozen=True)
class SurveyedBlocks:
    """A box of blocks of a world that stands still."""

    corner: tuple[int, int, int]
    """Lowest corner, in blocks."""
    kinds: NDArray[np.uint8]
    """``(X, Y, Z)`` what each block is to a walker."""

    @classmethod
    def from_names(cls, corner: Sequence[int], palette: Sequence[str], ids: NDArray[np.uint16]) -> SurveyedBlocks:
        """Makes it of numbers ``(Y, Z, X)`` into a list of names.

        Raises:
            ValueError: if a number has no name.
        """
        if ids.size == 0 or int(ids.max()) >= len(palette):
            raise ValueError(f"The survey holds block {int(ids.max()) if ids.size else None} of a palette of {len(palette)}.")
        kinds = np.array([kind_of(name) for name in palette], np.uint8)[ids.transpose(2, 0, 1)]
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
