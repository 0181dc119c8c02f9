// What stands on the ground: landmarks to know a place by, houses, trees. Leaves begin three blocks up, so a player fits below and can jump.
'use strict'

const { ID, ids, PAINTS, WALLS } = require('./blocks')

const LANDMARKS = 10
const HOUSE = 5
const TOWER = 8

// Levels columns [x0, x1) x [z0, z1) and claims them; gives their height, or -1 where they are taken, wet or too steep.
function level (land, x0, z0, x1, z1, limit) {
  const { size, margin, waterLevel, height, taken } = land
  if (x0 < margin + 2 || z0 < margin + 2 || x1 > size - margin - 2 || z1 > size - margin - 2) return -1
  let low = Infinity
  let high = 0
  for (let x = x0 - 1; x <= x1; x++) {
    for (let z = z0 - 1; z <= z1; z++) {
      if (taken[x * size + z]) return -1
      low = Math.min(low, height[x * size + z])
      high = Math.max(high, height[x * size + z])
    }
  }
  if (high - low > limit || low < waterLevel) return -1
  const ground = height[((x0 + x1) >> 1) * size + ((z0 + z1) >> 1)]
  for (let x = x0; x < x1; x++) {
    for (let z = z0; z < z1; z++) {
      const h = height[x * size + z]
      const top = land.get(x, h - 1, z)
      for (let y = h; y < ground; y++) land.set(x, y, z, top)
      for (let y = ground; y < h; y++) land.set(x, y, z, ID.air)
      land.set(x, ground - 1, z, top)
      height[x * size + z] = ground
      taken[x * size + z] = 1
    }
  }
  return ground
}

// Blocks [x, x + nx) x [y, y + ny) x [z, z + nz).
function box (land, x, y, z, nx, ny, nz, id) {
  for (let a = 0; a < nx; a++) for (let b = 0; b < ny; b++) for (let c = 0; c < nz; c++) land.set(x + a, y + b, z + c, id)
}

function house (land, chance, x, z, salt, roof) {
  const nx = 5 + chance.below(3, x, z, salt)
  const nz = 5 + chance.below(3, x, z, salt + 1)
  const g = level(land, x, z, x + nx, z + nz, 3)
  if (g < 0) return false
  const wall = WALLS[chance.below(WALLS.length, x, z, salt + 2)]
  const post = ids('oak_log', 'spruce_log', 'dark_oak_log', 'birch_log')[chance.below(4, x, z, salt + 3)]
  box(land, x, g - 1, z, nx, 1, nz, ID.oak_planks)
  box(land, x, g, z, nx, 4, nz, wall)
  box(land, x + 1, g, z + 1, nx - 2, 4, nz - 2, ID.air)
  for (const a of [0, nx - 1]) for (const c of [0, nz - 1]) box(land, x + a, g, z + c, 1, 4, 1, post)
  box(land, x, g + 4, z, nx, 1, nz, roof)
  box(land, x + 1, g + 5, z + 1, nx - 2, 1, nz - 2, roof)
  // A door in one side and windows in the others.
  const side = chance.below(4, x, z, salt + 4)
  const mx = x + (nx >> 1)
  const mz = z + (nz >> 1)
  const sides = [[x, mz], [x + nx - 1, mz], [mx, z], [mx, z + nz - 1]]
  sides.forEach(([a, c], n) => {
    if (n === side) box(land, a, g, c, 1, 2, 1, ID.air)
    else land.set(a, g + 1, c, ID.glass)
  })
  return true
}

// Builds a landmark of `kind` with its low corner at (x, z); false where the place does not suit.
function landmark (land, chance, kind, x, z, salt) {
  const first = chance.below(PAINTS.length, x, z, salt)
  const a = PAINTS[first]
  const b = PAINTS[(first + 1 + chance.below(PAINTS.length - 1, x, z, salt + 1)) % PAINTS.length]
  const turn = chance.at(x, z, salt + 2) < 0.5
  const more = chance.below(3, x, z, salt + 3)
  const along = (length) => turn ? [length, 1] : [1, length]
  if (kind === HOUSE) return house(land, chance, x, z, salt + 4, a)
  const length = 5 + more
  const [nx, nz] = [[1, 1], [2, 2], along(5), [3, 3], along(length), null, [5, 5], [1, 1], [3, 3], [5, 5]][kind]
  const g = level(land, x, z, x + nx, z + nz, kind === 2 || kind === 4 ? 3 : 4)
  if (g < 0) return false
  switch (kind) {
    case 0: // striped pillar
      for (let y = 0; y < 5 + more; y++) land.set(x, g + y, z, (y >> 1) % 2 ? b : a)
      break
    case 1: // thick pillar with a cap
      box(land, x, g, z, 2, 4 + more, 2, a)
      box(land, x, g + 4 + more, z, 2, 1, 2, b)
      break
    case 2: // arch to walk through
      box(land, x, g, z, 1, 4, 1, a)
      box(land, x + nx - 1, g, z + nz - 1, 1, 4, 1, a)
      box(land, x, g + 4, z, nx, 1, nz, b)
      break
    case 3: // cube with a belt
      box(land, x, g, z, 3, 3, 3, a)
      box(land, x, g + 1, z, 3, 1, 3, b)
      break
    case 4: // wall with posts
      box(land, x, g, z, nx, 3, nz, a)
      box(land, x, g, z, 1, 4, 1, b)
      box(land, x + nx - 1, g, z + nz - 1, 1, 4, 1, b)
      break
    case 6: // stepped pyramid
      for (let y = 0; y < 3; y++) box(land, x + y, g + y, z + y, 5 - 2 * y, 1, 5 - 2 * y, y === 1 ? b : a)
      break
    case 7: // banner on a pole
      box(land, x, g, z, 1, 7, 1, b)
      box(land, x + (turn ? 1 : 0), g + 4, z + (turn ? 0 : 1), turn ? 3 : 1, 3, turn ? 1 : 3, a)
      break
    case TOWER: // with battlements
      box(land, x, g, z, 3, 6 + more, 3, a)
      box(land, x, g + 4 + more, z, 3, 2, 3, b)
      for (const p of [0, 2]) for (const q of [0, 2]) land.set(x + p, g + 6 + more, z + q, a)
      break
    default: { // huge mushroom
      const cap = more === 0 ? ID.brown_mushroom_block : ID.red_mushroom_block
      box(land, x + 2, g, z + 2, 1, 5, 1, ID.mushroom_stem)
      box(land, x + 1, g + 5, z + 1, 3, 1, 3, cap)
      box(land, x, g + 4, z, 5, 1, 5, cap)
      box(land, x + 1, g + 4, z + 1, 3, 1, 3, ID.air)
      land.set(x + 2, g + 4, z + 2, ID.mushroom_stem)
    }
  }
  return true
}

// One layer of leaves: a square of `radius` without the corners beyond |dx| + |dz| > cut; only air becomes leaf.
function canopy (land, x, y, z, radius, cut, leaf) {
  for (let dx = -radius; dx <= radius; dx++) {
    for (let dz = -radius; dz <= radius; dz++) {
      if (Math.abs(dx) + Math.abs(dz) <= cut && land.get(x + dx, y, z + dz) === ID.air) land.set(x + dx, y, z + dz, leaf)
    }
  }
}

// Plants a tree of a kind (oak, birch, dark_oak, spruce, acacia) on ground height g.
function tree (land, kind, x, g, z, more) {
  const log = ID[`${kind}_log`]
  const leaf = ID[`${kind}_leaves`]
  if (kind === 'spruce') {
    box(land, x, g, z, 1, 6 + more, 1, log)
    let y = g + 3
    for (let n = 0; n < 3 + more; n++, y++) canopy(land, x, y, z, n % 2 ? 1 : 2, n % 2 ? 1 : 3, leaf)
    canopy(land, x, y, z, 1, 1, leaf)
    canopy(land, x, y + 1, z, 0, 0, leaf)
    return
  }
  if (kind === 'acacia') {
    box(land, x, g, z, 1, 4 + more, 1, log)
    canopy(land, x, g + 4 + more, z, 3, 4, leaf)
    canopy(land, x, g + 5 + more, z, 1, 2, leaf)
    return
  }
  const tall = 5 + more
  box(land, x, g, z, 1, tall, 1, log)
  for (let y = Math.max(3, tall - 2); y < tall; y++) canopy(land, x, g + y, z, 2, 3, leaf)
  canopy(land, x, g + tall, z, 1, 2, leaf)
  canopy(land, x, g + tall + 1, z, 1, 1, leaf)
}

module.exports = { landmark, tree, LANDMARKS, HOUSE, TOWER }
