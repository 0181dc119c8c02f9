// Seeded terrain in Minecraft's blocks: hills in steps of a block, biomes, ponds, woods, flowers, villages and landmarks, in a bounded grid
// whose edge nobody can pass. It has the embedded world's scale and rules (see ../terrain.py), not its blocks.
'use strict'

const { Chance } = require('./noise')
const { NAMES, ID, ids } = require('./blocks')
const { landmark, tree, LANDMARKS, HOUSE, TOWER } = require('./structures')
const { SIZE_X: SIZE, SIZE_Y, MARGIN } = require('./grid')

const WATER_LEVEL = 13
const VILLAGES = 4
const LANDMARK_CELL = 14
const TREE_CELL = 6
const RING = [[12, 0], [9, 9], [0, 12], [-9, 9], [-12, 0], [-9, -9], [0, -12], [9, -9]]

// Of each kind of land: Minecraft's biome number, its blocks, its trees and how often they stand, its plants and how often they grow.
const LANDS = {
  plains: { biome: 1, top: ID.grass_block, under: ID.dirt, trees: ['oak'], wood: 0.15, grove: 0.45, plants: ids('grass', 'grass', 'dandelion', 'poppy', 'azure_bluet', 'oxeye_daisy', 'cornflower'), growth: 0.16 },
  birchwood: { biome: 27, top: ID.grass_block, under: ID.dirt, trees: ['birch', 'oak'], wood: 0.3, grove: 0.45, plants: ids('grass', 'fern', 'allium', 'pink_tulip', 'red_tulip'), growth: 0.14 },
  desert: { biome: 2, top: ID.sand, under: ID.sandstone, trees: [], wood: 0, grove: 0, plants: ids('dead_bush'), growth: 0.02 },
  taiga: { biome: 5, top: ID.podzol, under: ID.dirt, trees: ['spruce'], wood: 0.3, grove: 0.4, plants: ids('fern', 'fern', 'grass', 'blue_orchid'), growth: 0.12 },
  snow: { biome: 12, top: ID.snow_block, under: ID.dirt, trees: ['spruce'], wood: 0.12, grove: 0.3, plants: [], growth: 0 },
  savanna: { biome: 35, top: ID.grass_block, under: ID.coarse_dirt, trees: ['acacia'], wood: 0.25, grove: 0, plants: ids('grass'), growth: 0.25 },
  badlands: { biome: 37, top: ID.red_sand, under: ID.terracotta, trees: ['dark_oak'], wood: 0.06, grove: 0.1, plants: ids('dead_bush'), growth: 0.03 }
}
const KINDS = Object.keys(LANDS)
const STRATA = ids('terracotta', 'orange_terracotta', 'terracotta', 'yellow_terracotta', 'white_terracotta', 'red_terracotta', 'terracotta', 'brown_terracotta')

function rawHeight (chance, x, z) {
  let height = 16.2 + 5 * chance.noise(x / 68, z / 68, 1) + 2.4 * chance.noise(x / 27, z / 27, 2) + 0.5 * chance.noise(x / 10, z / 10, 3)
  // Plateaus: their flanks vary from cliff to ramp, so they block the way in places but can be climbed somewhere.
  const width = 0.05 + 0.22 * (1 + chance.noise(x / 30, z / 30, 5))
  const s = Math.min(Math.max((chance.noise(x / 44, z / 44, 4) - 0.12) / width, 0), 1)
  height += 5 * s * s * (3 - 2 * s)
  return height
}

// The first village is near the middle, the others are in three of the four quarters: { x, z, height }.
function placeVillages (chance) {
  const turn = chance.below(4, 0, 0, 10)
  return Array.from({ length: VILLAGES }, (_, n) => {
    const quarter = n + turn
    const reach = n === 0 ? 16 : 30
    const centre = n === 0 ? [0, 0] : [quarter % 2 ? -64 : 64, (quarter >> 1) % 2 ? -64 : 64]
    const [x, z] = centre.map((c, axis) => Math.round(c + reach * (2 * chance.at(n, axis, 11) - 1)) + SIZE / 2)
    return { x, z, height: Math.max(Math.floor(rawHeight(chance, x, z)), WATER_LEVEL + 1) }
  })
}

function columnHeight (chance, villages, x, z) {
  let h = rawHeight(chance, x, z)
  for (const village of villages) {
    const d = Math.sqrt((x - village.x) ** 2 + (z - village.z) ** 2)
    const s = Math.min(Math.max((24 - d) / 10, 0), 1)
    h += (village.height + 0.5 - h) * s * s * (3 - 2 * s)
  }
  const edge = Math.min(x, z, SIZE - 1 - x, SIZE - 1 - z)
  if (edge < MARGIN) h = Math.max(h, WATER_LEVEL + 1) + 5 + 1.1 * (MARGIN - edge) + 3 * chance.noise(x / 9, z / 9, 6)
  return Math.min(Math.max(Math.floor(h), 6), SIZE_Y - 6)
}

function columnKind (chance, x, z) {
  const wobble = 0.05 * chance.noise(x / 7, z / 7, 7)
  const warm = chance.noise(x / 62 + 0.5, z / 62, 8) + wobble
  const wet = chance.noise(x / 62, z / 62 + 0.5, 9) + wobble
  if (warm > 0.2) return wet < 0.05 ? 'desert' : 'savanna'
  if (warm < -0.2) return wet < 0 ? 'snow' : 'taiga'
  return wet < -0.25 ? 'badlands' : wet > 0.2 ? 'birchwood' : 'plains'
}

// The ground as structures see it.
class Land {
  constructor () {
    this.size = SIZE
    this.margin = MARGIN
    this.waterLevel = WATER_LEVEL
    this.blocks = new Uint8Array(SIZE * SIZE_Y * SIZE)
    this.biomes = new Uint8Array(SIZE * SIZE)
    this.kind = new Uint8Array(SIZE * SIZE)
    this.height = new Int16Array(SIZE * SIZE)
    this.taken = new Uint8Array(SIZE * SIZE)
  }

  get (x, y, z) {
    return this.blocks[(x * SIZE_Y + y) * SIZE + z]
  }

  set (x, y, z, id) {
    this.blocks[(x * SIZE_Y + y) * SIZE + z] = id
  }
}

function fill (land, chance, villages) {
  for (let x = 0; x < SIZE; x++) {
    for (let z = 0; z < SIZE; z++) {
      const h = columnHeight(chance, villages, x, z)
      const name = columnKind(chance, x, z)
      const { biome, under } = LANDS[name]
      let { top } = LANDS[name]
      if (h <= WATER_LEVEL && name !== 'snow') top = chance.noise(x / 12, z / 12, 13) > 0.3 ? ID.gravel : ID.sand
      // Bare patches: an even white has nothing to find one's way by.
      if (name === 'snow' && chance.noise(x / 9, z / 9, 15) + 0.5 * chance.noise(x / 4, z / 4, 16) > 0.3) top = ID.grass_block
      for (let y = 0; y < h - 4; y++) {
        const ore = chance.at(x * 64 + y, z, 14)
        land.set(x, y, z, name === 'badlands' ? STRATA[y % STRATA.length] : ore < 0.02 ? ID.coal_ore : ore < 0.03 ? ID.iron_ore : ID.stone)
      }
      for (let y = h - 4; y < h - 1; y++) land.set(x, y, z, name === 'badlands' ? STRATA[y % STRATA.length] : under)
      land.set(x, h - 1, z, top)
      for (let y = h; y < WATER_LEVEL; y++) land.set(x, y, z, ID.water)
      land.height[x * SIZE + z] = h
      land.biomes[x * SIZE + z] = biome
      land.kind[x * SIZE + z] = KINDS.indexOf(name)
    }
  }
}

function buildVillages (land, chance, villages) {
  villages.forEach(({ x, z }, n) => {
    for (let a = x - 5; a <= x + 5; a++) {
      for (let c = z - 5; c <= z + 5; c++) {
        const h = land.height[a * SIZE + c]
        if ((a - x) ** 2 + (c - z) ** 2 <= 22 && h >= WATER_LEVEL) land.set(a, h - 1, c, ID.gravel)
      }
    }
    landmark(land, chance, chance.at(n, 0, 20) < 0.5 ? TOWER : 1, x - 1, z - 1, 21 + 40 * n)
    RING.forEach(([dx, dz], m) => {
      const kind = chance.at(n, m, 23) < 0.7 ? HOUSE : chance.below(LANDMARKS, n, m, 24)
      landmark(land, chance, kind, x + dx - 2 + chance.below(3, n, m, 25), z + dz - 2 + chance.below(3, n, m, 26), 200 + 20 * m)
    })
    // The plaza stays open: nothing else may be put on it.
    for (let a = x - 5; a <= x + 5; a++) for (let c = z - 5; c <= z + 5; c++) land.taken[a * SIZE + c] = 1
  })
}

function scatter (land, chance) {
  const cells = Math.floor(SIZE / LANDMARK_CELL)
  for (let i = 0; i < cells; i++) {
    for (let k = 0; k < cells; k++) {
      for (let attempt = 0; attempt < 4; attempt++) {
        const salt = 400 + 40 * attempt
        const x = i * LANDMARK_CELL + chance.below(10, i, k, salt) + 1
        const z = k * LANDMARK_CELL + chance.below(10, i, k, salt + 1) + 1
        if (landmark(land, chance, chance.below(LANDMARKS, i, k, salt + 2), x, z, salt + 3)) break
      }
    }
  }
}

function plantTrees (land, chance) {
  const cells = Math.floor(SIZE / TREE_CELL)
  for (let i = 0; i < cells; i++) {
    for (let k = 0; k < cells; k++) {
      const x = i * TREE_CELL + chance.below(TREE_CELL, i, k, 600)
      const z = k * TREE_CELL + chance.below(TREE_CELL, i, k, 601)
      if (x < 4 || z < 4 || x >= SIZE - 4 || z >= SIZE - 4) continue
      const g = land.height[x * SIZE + z]
      const { trees, wood, grove } = LANDS[KINDS[land.kind[x * SIZE + z]]]
      const odds = wood + (chance.noise(x / 30, z / 30, 602) > 0.1 ? grove : 0)
      if (!trees.length || g < WATER_LEVEL || g > SIZE_Y - 12 || chance.at(i, k, 603) >= odds) continue
      let free = true
      for (let dx = -1; dx <= 1; dx++) {
        for (let dz = -1; dz <= 1; dz++) {
          const at = (x + dx) * SIZE + z + dz
          if (land.taken[at] || Math.abs(land.height[at] - g) > 2) free = false
        }
      }
      if (!free) continue
      land.taken[x * SIZE + z] = 1
      tree(land, trees[chance.below(trees.length, i, k, 605)], x, g, z, chance.below(3, i, k, 604))
    }
  }
}

// Flowers come in patches of one kind, so a meadow is a landmark too.
function sow (land, chance) {
  for (let x = 0; x < SIZE; x++) {
    for (let z = 0; z < SIZE; z++) {
      const at = x * SIZE + z
      const h = land.height[at]
      const { top, plants, growth } = LANDS[KINDS[land.kind[at]]]
      if (!plants.length || land.taken[at] || land.get(x, h - 1, z) !== top || land.get(x, h, z) !== ID.air) continue
      if (chance.at(x, z, 700) < growth) land.set(x, h, z, plants[chance.below(plants.length, x >> 3, z >> 3, 701)])
    }
  }
}

// The walkable top: feet height of each column, the water's over water; a player can stand where two blocks are free of bodies and water.
function surface (land) {
  const passable = new Set([ID.air, ...ids('grass', 'fern', 'dead_bush', 'poppy', 'dandelion', 'azure_bluet', 'oxeye_daisy', 'cornflower', 'allium',
    'red_tulip', 'pink_tulip', 'blue_orchid')])
  const heights = new Int16Array(SIZE * SIZE)
  const walkable = new Uint8Array(SIZE * SIZE)
  for (let x = 0; x < SIZE; x++) {
    for (let z = 0; z < SIZE; z++) {
      const h = land.height[x * SIZE + z]
      const inside = x >= MARGIN && x < SIZE - MARGIN && z >= MARGIN && z < SIZE - MARGIN
      walkable[x * SIZE + z] = inside && passable.has(land.get(x, h, z)) && passable.has(land.get(x, h + 1, z)) ? 1 : 0
      heights[x * SIZE + z] = Math.max(h, WATER_LEVEL)
    }
  }
  return { heights, walkable }
}

// World of a seed, given as two uint32.
function generate (high, low) {
  const chance = new Chance(high, low)
  const land = new Land()
  const villages = placeVillages(chance)
  fill(land, chance, villages)
  buildVillages(land, chance, villages)
  scatter(land, chance)
  plantTrees(land, chance)
  sow(land, chance)
  return { names: NAMES, blocks: land.blocks, biomes: land.biomes, ...surface(land) }
}

module.exports = { generate }
