// Chance without state: integer hashes of (seed, position, salt), so a seed gives the same world on every machine. Nothing here uses sines.
'use strict'

function mix (h) {
  h = Math.imul(h ^ (h >>> 16), 0x7feb352d)
  h = Math.imul(h ^ (h >>> 15), 0x846ca68b)
  return (h ^ (h >>> 16)) >>> 0
}

// The chance of one world; its seed is two uint32, high and low.
class Chance {
  constructor (high, low) {
    this.key = mix(mix(low ^ 0x9e3779b9) ^ mix(high + 0x85ebca6b))
  }

  // Uniform number in [0, 1).
  at (a, b, salt) {
    let h = mix(this.key ^ Math.imul(a, 0x27d4eb2d))
    h = mix(h ^ Math.imul(b, 0x165667b1))
    return mix(h ^ Math.imul(salt, 0x9e3779b1)) / 4294967296
  }

  // Whole number in [0, count).
  below (count, a, b, salt) {
    return Math.floor(count * this.at(a, b, salt))
  }

  // Smooth value noise in [-1, 1] at a point in lattice units.
  noise (x, z, salt) {
    const i = Math.floor(x)
    const k = Math.floor(z)
    let u = x - i
    let v = z - k
    u = u * u * u * (u * (u * 6 - 15) + 10)
    v = v * v * v * (v * (v * 6 - 15) + 10)
    const a = this.at(i, k, salt)
    const b = this.at(i + 1, k, salt)
    const c = this.at(i, k + 1, salt)
    const d = this.at(i + 1, k + 1, salt)
    const near = a + (b - a) * u
    return 2 * (near + (c + (d - c) * u - near) * v) - 1
  }
}

module.exports = { Chance }
