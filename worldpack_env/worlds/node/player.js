// A player's movement by prismarine-physics, as a pure function of state, keys and blocks.
'use strict'

const data = require('minecraft-data')('1.16.4')
const { Physics } = require('prismarine-physics')
const { Vec3 } = require('vec3')

const physics = Physics(data, { getBlock: () => null })

// state: x, y, z, velocity x, y, z, on ground, ticks until a held jump key jumps again. yaw: Minecraft's, in degrees.
// keys: forward, back, left, right, jump, sneak, sprint. Gives the new state and whether a wall stopped a held walk in any tick.
function move (grid, state, yaw, keys, ticks) {
  const [forward, back, left, right, jump, sneak, sprint] = keys
  const walking = forward !== back || left !== right
  const player = {
    pos: new Vec3(state[0], state[1], state[2]),
    vel: new Vec3(state[3], state[4], state[5]),
    onGround: state[6] !== 0,
    jumpTicks: state[7],
    jumpQueued: false,
    yaw: Math.PI - yaw * Math.PI / 180,
    pitch: 0,
    // As in the game, only a player who walks ahead and does not sneak sprints; the physics leave that to their caller.
    control: { forward, back, left, right, jump, sneak, sprint: sprint && forward && !back && !sneak },
    isInWater: false,
    isInLava: false,
    isInWeb: false,
    isCollidedHorizontally: false,
    isCollidedVertically: false,
    elytraFlying: false,
    elytraEquipped: false,
    fireworkRocketDuration: 0,
    jumpBoost: 0,
    speed: 0,
    slowness: 0,
    dolphinsGrace: 0,
    slowFalling: 0,
    levitation: 0,
    depthStrider: 0
  }
  let blocked = false
  for (let n = 0; n < ticks; n++) {
    physics.simulatePlayer(player, grid.forPhysics)
    if (walking && player.isCollidedHorizontally) blocked = true
  }
  const { pos, vel } = player
  return { state: [pos.x, pos.y, pos.z, vel.x, vel.y, vel.z, player.onGround ? 1 : 0, player.jumpTicks], blocked }
}

module.exports = { move }
