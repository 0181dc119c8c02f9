// Meshes of 16 x 16 columns, by prismarine-viewer's own mesher, packed for the drawing in Python.
//
// A quad is four vertices of 16 bytes: int16 x, y, z in 1/128 blocks from a given place; uint16 tile of the atlas; uint8 r, g, b, a; uint8 u, v in 1/8 texels; 2 bytes
// of padding. Its triangles are always (0, 1, 2) and (2, 1, 3). Quads are grouped by where they face, so that the drawing can leave out those that
// cannot face the eye: -y, +y, -z, +z, -x, +x, any other way, water.
'use strict'

const path = require('path')
const fs = require('fs')
const { getSectionGeometry } = require('prismarine-viewer/viewer/lib/models')

const GROUPS = 8
const OTHER = 6
const WATER = 7
const BYTES = 64
const ATLAS_TILES = 32 // the 1.16.4 atlas is 512 pixels wide
const HIGHEST = 32767 // of an int16; a face on top of block 255 lies one part of 128 lower
const SHADES = [0.5, 1, 0.8, 0.8, 0.6, 0.6, 1] // Minecraft's brightness of each way to face

const viewer = path.dirname(require.resolve('prismarine-viewer/package.json'))
const blocksStates = JSON.parse(fs.readFileSync(path.join(viewer, 'public/blocksStates/1.16.4.json'), 'utf8'))

// Group of quad q: one of the six ways where it lies flat along the grid, else OTHER (the crossed planes of plants).
function facing (geometry, q) {
  const { positions, normals } = geometry
  for (let axis = 0; axis < 3; axis++) {
    const normal = normals[12 * q + axis]
    if (Math.abs(normal) < 0.5) continue
    const first = positions[12 * q + axis]
    for (let v = 1; v < 4; v++) if (Math.abs(positions[12 * q + 3 * v + axis] - first) > 1e-4) return OTHER
    return [4, 0, 2][axis] + (normal > 0 ? 1 : 0)
  }
  return OTHER
}

function pack (geometry, q, group, flipped, from, bytes, at) {
  const { positions, colors, uvs } = geometry
  let u = 0
  let v = 0
  for (let n = 0; n < 4; n++) {
    u += uvs[8 * q + 2 * n] * ATLAS_TILES / 4
    v += uvs[8 * q + 2 * n + 1] * ATLAS_TILES / 4
  }
  const column = Math.floor(u)
  const row = Math.floor(v)
  const shade = group === WATER ? 1 : SHADES[group]
  const order = flipped ? [2, 0, 3, 1] : [0, 1, 2, 3]
  for (let n = 0; n < 4; n++) {
    const vertex = 4 * q + order[n]
    const to = at + 16 * n
    bytes.writeInt16LE(Math.round(128 * (positions[3 * vertex] + geometry.sx - from[0])), to)
    bytes.writeInt16LE(Math.min(Math.round(128 * (positions[3 * vertex + 1] + geometry.sy)), HIGHEST), to + 2)
    bytes.writeInt16LE(Math.round(128 * (positions[3 * vertex + 2] + geometry.sz - from[1])), to + 4)
    bytes.writeUInt16LE(row * ATLAS_TILES + column, to + 6)
    for (let c = 0; c < 3; c++) bytes[to + 8 + c] = Math.round(255 * Math.min(colors[3 * vertex + c] * shade, 1))
    bytes[to + 11] = 255
    bytes[to + 12] = Math.round(128 * Math.min(Math.max(uvs[2 * vertex] * ATLAS_TILES - column, 0), 1))
    bytes[to + 13] = Math.round(128 * Math.min(Math.max(uvs[2 * vertex + 1] * ATLAS_TILES - row, 0), 1))
    bytes[to + 14] = bytes[to + 15] = 0
  }
}

// Mesh of the column of 16 x 16 blocks whose corner is at (x, z): { counts: quads in each group, bytes }.
// world: has getBlock(); layers: the lowest y of each cube of 16 blocks that is not empty; from: the x and z that vertices are counted from.
function columnMesh (world, x, z, layers, from = [0, 0]) {
  const found = Array.from({ length: GROUPS }, () => [])
  for (const y of layers) {
    const geometry = getSectionGeometry(x, y, z, world, blocksStates)
    const quads = geometry.positions.length / 12
    // A quad has 6 indices, a quad of water 12, for it is seen from both sides; those come last.
    const water = (geometry.indices.length - 6 * quads) / 6
    for (let q = 0; q < quads; q++) {
      const group = q >= quads - water ? WATER : facing(geometry, q)
      const flipped = q < quads - water && geometry.indices[6 * q + 1] === geometry.indices[6 * q] + 3
      found[group].push([geometry, q, flipped])
    }
  }
  const bytes = Buffer.alloc(BYTES * found.reduce((sum, group) => sum + group.length, 0))
  let at = 0
  found.forEach((quads, group) => {
    for (const [geometry, q, flipped] of quads) {
      pack(geometry, q, group, flipped, from, bytes, at)
      at += BYTES
    }
  })
  return { counts: found.map(group => group.length), bytes }
}

module.exports = { columnMesh }
