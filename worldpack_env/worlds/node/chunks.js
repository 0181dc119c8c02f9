// The blocks that a server has sent, as the mesher and a walker see them: a world of columns of 16 x 256 x 16 blocks that come, change and go.
'use strict'

const Block = require('prismarine-block')('1.16.4')
const data = require('minecraft-data')('1.16.4')
const { prepare, buriedTwin, bodyOf, SOLID } = require('./grid')

const HEIGHT = 256
const LAYER = 4096 // blocks of a cube of 16
// What a block is to somebody who looks for ground: passed through; a liquid, or harmful; a whole block to stand on; solid otherwise; of a tree.
const [OPEN, WET, GROUND, OTHER, TREE] = [0, 1, 2, 3, 4]
const LIQUIDS = new Set(['water', 'bubble_column', 'seagrass', 'tall_seagrass', 'kelp', 'kelp_plant'])
const HARMFUL = new Set(['lava', 'fire', 'soul_fire', 'cobweb', 'sweet_berry_bush', 'wither_rose', 'nether_portal', 'end_portal'])
const BAD_GROUND = new Set(['magma_block', 'cactus', 'campfire', 'soul_campfire'])
const LOW_TOP = 7 / 8 // farmland and paths are 15/16 of a block high

function footingOf (kind) {
  const { name, shapes } = kind
  if (LIQUIDS.has(name) || HARMFUL.has(name)) return WET
  if (/_(leaves|log|wood)$/.test(name) || name === 'mushroom_stem' || name.endsWith('_mushroom_block')) return TREE
  if (!shapes.length) return OPEN
  const whole = shapes.length === 1 && shapes[0].every((v, n) => n === 4 ? v >= LOW_TOP && v <= 1 : v === (n < 3 ? 0 : 1))
  return whole && !BAD_GROUND.has(name) ? GROUND : OTHER
}

// What is known of each block state, made when it is first met.
class Kinds {
  constructor () {
    this.kinds = []
    this.twins = []
    this.opaque = []
    this.body = []
    this.footing = []
  }

  at (state) {
    if (this.kinds[state] === undefined) {
      const kind = prepare(Block.fromStateId(state, 1))
      this.kinds[state] = kind
      this.twins[state] = buriedTwin(kind)
      this.opaque[state] = kind.isCube && !kind.transparent
      this.body[state] = bodyOf(kind)
      this.footing[state] = footingOf(kind)
    }
    return this.kinds[state]
  }
}

// One column as 16 cubes of block states; those of nothing but air are null.
function unpack (column, kinds) {
  return column.sections.map(section => {
    if (!section || section.solidBlockCount === 0) return null
    const states = new Uint16Array(LAYER)
    const { palette } = section
    for (let n = 0; n < LAYER; n++) {
      const value = section.data.get(n)
      states[n] = palette === null ? value : palette[value]
    }
    new Set(states).forEach(state => kinds.at(state))
    return states
  })
}

class Chunks {
  // column(i, k): the prismarine-chunk column whose corner is at (16 i, 16 k), or nothing.
  constructor (column) {
    this.column = column
    this.kinds = new Kinds()
    this.kinds.at(0)
    this.columns = new Map()
    this.last = null // the column asked for last, which is most often the next one too
    this.forMesher = { getBlock: position => this.mesherBlock(position.x, position.y, position.z) }
  }

  // Forgets what was unpacked of a column that came, changed or went.
  forget (i, k) {
    this.columns.delete(`${i},${k}`)
    this.last = null
  }

  // Cubes of the column at (16 i, 16 k); null if it is not there.
  cubes (i, k) {
    if (this.last && this.last.i === i && this.last.k === k) return this.last.cubes
    const key = `${i},${k}`
    let cubes = this.columns.get(key)
    if (cubes === undefined) {
      const column = this.column(i, k)
      if (!column) return null
      cubes = unpack(column, this.kinds)
      this.columns.set(key, cubes)
    }
    this.last = { i, k, cubes }
    return cubes
  }

  // Block state at whole numbers; 0 (air) above and below the world, null where nothing was received.
  state (x, y, z) {
    const cubes = this.cubes(x >> 4, z >> 4)
    if (cubes === null) return null
    if (y < 0 || y >= HEIGHT) return 0
    const states = cubes[y >> 4]
    return states === null ? 0 : states[(y & 15) << 8 | (z & 15) << 4 | x & 15]
  }

  isOpaque (x, y, z) {
    if (y < 0) return true // nobody sees the underside of the world
    const state = this.state(x, y, z)
    return state === null || this.kinds.opaque[state]
  }

  // As prismarine-viewer's own world answers: null where nothing is known, so no face is made there.
  mesherBlock (x, y, z) {
    const state = y < 0 ? null : this.state(x, y, z)
    if (state === null) return null
    const { kinds, twins, opaque } = this.kinds
    const buried = opaque[state] && this.isOpaque(x, y + 1, z) && this.isOpaque(x, y - 1, z) && this.isOpaque(x + 1, y, z) &&
      this.isOpaque(x - 1, y, z) && this.isOpaque(x, y, z + 1) && this.isOpaque(x, y, z - 1)
    const block = buried ? twins[state] : kinds[state]
    block.position.x = x
    block.position.y = y
    block.position.z = z
    const biome = buried ? 1 : this.column(x >> 4, z >> 4).getBiome({ x: x & 15, y: Math.min(y, HEIGHT - 1), z: z & 15 })
    block.biome = data.biomes[biome] || data.biomes[1]
    return block
  }

  // Lowest y of each cube of a column that is not all air.
  layers (i, k) {
    return this.cubes(i, k).flatMap((cube, n) => cube === null ? [] : [16 * n])
  }

  // Bytes of a box of blocks: what each is to a body; what was not received is solid.
  bodies ([x, y, z], [nx, ny, nz]) {
    const found = Buffer.alloc(nx * ny * nz, SOLID)
    let at = 0
    for (let a = x; a < x + nx; a++) {
      for (let b = y; b < y + ny; b++) {
        for (let c = z; c < z + nz; c++, at++) {
          const state = this.state(a, b, c)
          if (state !== null) found[at] = this.kinds.body[state]
        }
      }
    }
    return found
  }

  // Whether a body with feet at (x, y, z) cuts a block, by the shapes of blocks; what was not received is solid.
  overlaps (x, y, z) {
    const low = [x - 0.3, y, z - 0.3].map(v => v + 1e-7)
    const high = [x + 0.3, y + 1.8, z + 0.3].map(v => v - 1e-7)
    const [a0, b0, c0] = low.map(Math.floor)
    const [a1, b1, c1] = high.map(Math.floor)
    for (let a = a0; a <= a1; a++) {
      for (let b = b0 - 1; b <= b1; b++) { // fences reach into the block above them
        for (let c = c0; c <= c1; c++) {
          const state = this.state(a, b, c)
          if (state === null) return true
          for (const [x0, y0, z0, x1, y1, z1] of this.kinds.kinds[state].shapes) {
            if (low[0] < a + x1 && high[0] > a + x0 && low[1] < b + y1 && high[1] > b + y0 && low[2] < c + z1 && high[2] > c + z0) return true
          }
        }
      }
    }
    return false
  }

  // The walkable top of a square of columns from (x, z): { heights: Int16Array, walkable: Uint8Array, known: how many of its columns were received }.
  // Ground is the highest block that is neither passed through nor of a tree; to be walkable it is whole and has two open blocks above it.
  surface (x, z, side) {
    const heights = new Int16Array(side * side)
    const walkable = new Uint8Array(side * side)
    const { footing } = this.kinds
    let known = 0
    for (let i = x; i < x + side; i++) {
      for (let k = z; k < z + side; k++) {
        const cubes = this.cubes(i >> 4, k >> 4)
        if (cubes === null) continue
        known++
        let y = HEIGHT - 1
        while (y >= 0) {
          if (cubes[y >> 4] === null) {
            y = (y & ~15) - 1
            continue
          }
          const kind = footing[this.state(i, y, k)]
          if (kind !== OPEN && kind !== TREE) break
          y--
        }
        const at = (i - x) * side + k - z
        heights[at] = y + 1
        walkable[at] = y >= 0 && footing[this.state(i, y, k)] === GROUND && footing[this.state(i, y + 1, k)] === OPEN &&
          footing[this.state(i, y + 2, k)] === OPEN ? 1 : 0
      }
    }
    return { heights, walkable, known }
  }
}

module.exports = { Chunks }
