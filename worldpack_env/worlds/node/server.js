// One Minecraft world behind a pair of pipes; see wire.js. Requests are answered in order; the process ends when its input does.
//
//   world {seed: [high, low]}                            build a seeded world; `grid` takes given blocks instead
//   grid  {names, biome}        + blocks (X, Y, Z) uint8
//   mesh  {columns: [[i, k]]}                            meshes, see mesh.js
//   name  {cell: [i, y, k]}                              what a block of the grid is called
//   step  {ticks}               + 16 float64: state (8), yaw, keys (7); see player.js
'use strict'

// Libraries greet on standard output now and then; that is the pipe.
console.log = console.info = console.warn = console.error

const { readMessage, writeMessage } = require('./wire')
const { Grid, SIZE_X, SIZE_Y, SIZE_Z, ORIGIN_X, ORIGIN_Z, MARGIN } = require('./grid')
const { columnMesh } = require('./mesh')
const { move } = require('./player')
const { generate } = require('./terrain')

const LAYERS = Array.from({ length: SIZE_Y / 16 }, (_, n) => 16 * n)
let grid = null

function floats (values) {
  return Buffer.from(Float64Array.from(values).buffer)
}

const operations = {
  hello () {
    return [{ size: [SIZE_X, SIZE_Y, SIZE_Z], origin: [ORIGIN_X, ORIGIN_Z], margin: MARGIN, node: process.version }]
  },
  world ({ seed }) {
    const made = generate(seed[0], seed[1])
    grid = new Grid(made.names, made.blocks, made.biomes)
    const heights = Buffer.from(made.heights.buffer)
    return [{}, Buffer.concat([heights, Buffer.from(made.walkable.buffer), Buffer.from(grid.bodies().buffer)])]
  },
  grid ({ names, biome }, payload) {
    if (payload.length !== SIZE_X * SIZE_Y * SIZE_Z) throw new Error(`a grid has ${SIZE_X * SIZE_Y * SIZE_Z} blocks, got ${payload.length}`)
    const blocks = Uint8Array.from(payload)
    if (blocks.some(b => b >= names.length)) throw new Error(`a block number is beyond the ${names.length} names`)
    grid = new Grid(names, blocks, new Uint8Array(SIZE_X * SIZE_Z).fill(biome))
    return [{}, Buffer.from(grid.bodies().buffer)]
  },
  mesh ({ columns }) {
    const meshes = columns.map(([i, k]) => columnMesh(grid.forMesher, ORIGIN_X + 16 * i, ORIGIN_Z + 16 * k, LAYERS))
    return [{ counts: meshes.map(mesh => mesh.counts) }, Buffer.concat(meshes.map(mesh => mesh.bytes))]
  },
  name ({ cell: [i, y, k] }) {
    return [{ name: grid.nameOf(i, y, k) }]
  },
  step ({ ticks }, payload) {
    const values = Array.from({ length: 16 }, (_, n) => payload.readDoubleLE(8 * n))
    const { state, blocked } = move(grid, values.slice(0, 8), values[8], values.slice(9).map(key => key > 0.5), ticks)
    return [{}, floats([...state, blocked ? 1 : 0])]
  }
}

for (let message = readMessage(); message !== null; message = readMessage()) {
  const { id, header, payload } = message
  let answer
  try {
    answer = operations[header.op](header, payload)
  } catch (error) {
    console.error(error)
    answer = [{ error: String(error.message || error) }]
  }
  writeMessage(id, ...answer)
}
