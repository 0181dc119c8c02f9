// Ground of flying-squid's tests: boxes of blocks, [x0, y0, z0, x1, y1, z1, name] with the upper ends left out, the later ones over the earlier.
'use strict'

module.exports = ({ registry, boxes }) => {
  const Chunk = require('prismarine-chunk')(registry)
  return (i, k) => {
    const chunk = new Chunk()
    for (const [x0, y0, z0, x1, y1, z1, name] of boxes) {
      const state = registry.blocksByName[name].defaultState
      for (let x = Math.max(x0, 16 * i); x < Math.min(x1, 16 * i + 16); x++) {
        for (let z = Math.max(z0, 16 * k); z < Math.min(z1, 16 * k + 16); z++) {
          for (let y = y0; y < y1; y++) chunk.setBlockStateId({ x: x - 16 * i, y, z: z - 16 * k }, state)
        }
      }
    }
    chunk.biomes.fill(1)
    return chunk
  }
}
