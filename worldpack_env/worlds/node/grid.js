// The blocks of one world: a dense, bounded grid, seen by prismarine-physics and by prismarine-viewer's mesher as a world with getBlock().
'use strict'

const Block = require('prismarine-block')('1.16.4')
const data = require('minecraft-data')('1.16.4')
const { Vec3 } = require('vec3')

const SIZE_X = 256
const SIZE_Y = 48
const SIZE_Z = 256
const ORIGIN_X = -128
const ORIGIN_Z = -128
const MARGIN = 8 // columns along the edge that no player can enter
const [EMPTY, SOLID, WATER] = [0, 1, 2]

// Block of a name such as oak_log or oak_log[axis=x]; states that are not told are Minecraft's defaults.
function makeBlock (text) {
  const [, name, states] = /^([a-z_]+)(?:\[(.*)\])?$/.exec(text) || []
  const kind = data.blocksByName[name]
  if (!kind) throw new Error(`Minecraft 1.16.4 has no block named '${text}'`)
  let block = Block.fromStateId(kind.defaultState, 1)
  if (states) {
    const told = Object.fromEntries(states.split(',').map(pair => pair.split('=')))
    const properties = { ...block.getProperties() }
    for (const [key, value] of Object.entries(told)) properties[key] = value === 'true' ? true : value === 'false' ? false : value
    block = Block.fromProperties(name, properties, 1)
  }
  return prepare(block)
}

// Makes a block one that the mesher can ask: one object a kind, its place is set for each question.
function prepare (block) {
  const properties = block.getProperties()
  block.getProperties = () => properties
  const s = block.shapes
  block.isCube = s.length === 1 && s[0].every((v, i) => v === (i < 3 ? 0 : 1))
  block.position = new Vec3(0, 0, 0)
  return block
}

// The twin of a full, opaque block with six such neighbours: it has no face to show, hence no model, so the mesher is done with it at once.
function buriedTwin (kind) {
  return Object.assign(Object.create(Object.getPrototypeOf(kind)), kind, { variant: [], position: new Vec3(0, 0, 0) })
}

// What a block is to a body.
function bodyOf (kind) {
  return kind.shapes.length > 0 ? SOLID : kind.name === 'water' ? WATER : EMPTY
}

const BARRIER = makeBlock('barrier')
const AIR = makeBlock('air')

class Grid {
  // names: block names, `air` first; blocks: Uint8Array of indices into them, [x][y][z]; biomes: Uint8Array [x][z] of Minecraft's biome numbers.
  constructor (names, blocks, biomes) {
    this.kinds = names.map(makeBlock)
    this.blocks = blocks
    this.biomes = biomes
    this.buried = this.kinds.map(buriedTwin)
    this.opaque = Uint8Array.from(this.kinds, kind => kind.isCube && !kind.transparent ? 1 : 0)
    this.body = Uint8Array.from(this.kinds, bodyOf)
    const grid = this
    this.forPhysics = { getBlock: position => grid.physicsBlock(position) }
    this.forMesher = { getBlock: position => grid.mesherBlock(position) }
  }

  nameOf (i, y, k) {
    return this.kinds[this.blocks[(i * SIZE_Y + y) * SIZE_Z + k]].name
  }

  // What a body meets: the margin and everything below the world are solid, above it is air. Physics keeps blocks, so each is a new object.
  physicsBlock (position) {
    const x = Math.floor(position.x)
    const y = Math.floor(position.y)
    const z = Math.floor(position.z)
    const i = x - ORIGIN_X
    const k = z - ORIGIN_Z
    let kind = AIR
    if (i < MARGIN || i >= SIZE_X - MARGIN || k < MARGIN || k >= SIZE_Z - MARGIN || y < 0) kind = BARRIER
    else if (y < SIZE_Y) kind = this.kinds[this.blocks[(i * SIZE_Y + y) * SIZE_Z + k]]
    return {
      type: kind.type,
      name: kind.name,
      metadata: kind.metadata,
      shapes: kind.shapes,
      boundingBox: kind.boundingBox,
      isWaterlogged: kind.isWaterlogged,
      getProperties: kind.getProperties,
      position: new Vec3(x, y, z)
    }
  }

  // What is to be seen: nothing beyond the grid's sides and floor, so no face is made there. One object a kind, as the mesher expects.
  mesherBlock (position) {
    const { x, y, z } = position
    const i = x - ORIGIN_X
    const k = z - ORIGIN_Z
    if (i < 0 || i >= SIZE_X || k < 0 || k >= SIZE_Z || y < 0) return null
    let block = AIR
    if (y < SIZE_Y) {
      const at = (i * SIZE_Y + y) * SIZE_Z + k
      const b = this.blocks[at]
      block = this.opaque[b] && this.isBuried(i, y, k, at) ? this.buried[b] : this.kinds[b]
    }
    block.position.x = x
    block.position.y = y
    block.position.z = z
    block.biome = data.biomes[this.biomes[i * SIZE_Z + k]]
    return block
  }

  // A neighbour beyond the sides or the floor counts as opaque, for no face is made towards it.
  isBuried (i, y, k, at) {
    const { blocks, opaque } = this
    return y < SIZE_Y - 1 && opaque[blocks[at + SIZE_Z]] === 1 && (y === 0 || opaque[blocks[at - SIZE_Z]] === 1) &&
      (k === 0 || opaque[blocks[at - 1]] === 1) && (k === SIZE_Z - 1 || opaque[blocks[at + 1]] === 1) &&
      (i === 0 || opaque[blocks[at - SIZE_Y * SIZE_Z]] === 1) && (i === SIZE_X - 1 || opaque[blocks[at + SIZE_Y * SIZE_Z]] === 1)
  }

  // (X, Y, Z) bytes: what each block is to a body, the margin left out.
  bodies () {
    const bodies = new Uint8Array(this.blocks.length)
    for (let n = 0; n < bodies.length; n++) bodies[n] = this.body[this.blocks[n]]
    return bodies
  }
}

module.exports = { Grid, prepare, buriedTwin, bodyOf, SIZE_X, SIZE_Y, SIZE_Z, ORIGIN_X, ORIGIN_Z, MARGIN, SOLID }
