// The blocks worlds are made of. All are full cubes, or empty to a body, so that the walkable surface is whole blocks high.
'use strict'

const COLOURS = ['white', 'orange', 'magenta', 'light_blue', 'yellow', 'lime', 'pink', 'gray', 'cyan', 'purple', 'blue', 'brown', 'green', 'red', 'black']

const NAMES = [
  'air', 'stone', 'dirt', 'grass_block', 'sand', 'sandstone', 'red_sand', 'terracotta', 'podzol', 'coarse_dirt', 'gravel',
  'water', 'snow_block', 'oak_log', 'birch_log', 'spruce_log', 'acacia_log', 'dark_oak_log', 'oak_leaves', 'birch_leaves', 'spruce_leaves',
  'acacia_leaves', 'dark_oak_leaves', 'grass', 'fern', 'dead_bush', 'poppy', 'dandelion', 'azure_bluet', 'oxeye_daisy', 'cornflower', 'allium',
  'red_tulip', 'pink_tulip', 'blue_orchid', 'oak_planks', 'spruce_planks', 'birch_planks', 'cobblestone', 'mossy_cobblestone', 'stone_bricks',
  'bricks', 'bookshelf', 'glass', 'glowstone', 'pumpkin', 'melon', 'hay_block', 'quartz_block', 'sea_lantern', 'diamond_block', 'gold_block',
  'emerald_block', 'prismarine', 'purpur_block', 'nether_bricks', 'coal_ore', 'iron_ore', 'red_terracotta', 'orange_terracotta',
  'yellow_terracotta', 'white_terracotta', 'brown_terracotta', 'red_mushroom_block', 'brown_mushroom_block', 'mushroom_stem',
  ...COLOURS.map(colour => `${colour}_concrete`), ...COLOURS.map(colour => `${colour}_wool`)
]

const ID = Object.fromEntries(NAMES.map((name, n) => [name, n]))

function ids (...names) {
  return names.map(name => ID[name])
}

const PAINTS = [...COLOURS.map(colour => ID[`${colour}_concrete`]), ...COLOURS.map(colour => ID[`${colour}_wool`]),
  ...ids('glowstone', 'pumpkin', 'melon', 'hay_block', 'quartz_block', 'diamond_block', 'gold_block', 'emerald_block', 'prismarine',
    'purpur_block', 'nether_bricks', 'bookshelf', 'sea_lantern')]
const WALLS = ids('oak_planks', 'spruce_planks', 'birch_planks', 'cobblestone', 'mossy_cobblestone', 'stone_bricks', 'bricks')

module.exports = { NAMES, ID, ids, PAINTS, WALLS }
