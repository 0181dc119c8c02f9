// One player on a running Minecraft server, behind a pair of pipes; see wire.js. Requests are answered in order; the process ends when its input does.
//
//   hello   {}                                             answers when all is loaded
//   join    {host, port, name, seconds}                    come in as a player of that name
//   place   {pose: [x, y, z], radius, seconds}             be teleported there at rest, and wait for the columns within so many of 16 blocks
//   survey  {corner: [x, z], side}                         the walkable top of a square; see chunks.js
//   mesh    {columns: [[i, k]], from: [x, z]}              meshes of the columns that were received, see mesh.js
//   bodies  {corner: [x, y, z], size}                      what the blocks of a box are to a body
//   step    {ticks, seconds}  + 9 float64: yaw and pitch in degrees, keys (7)
//
// The body is moved here, tick by tick of 50 ms by the clock, by mineflayer's own physics, and told to the server; the server may put it elsewhere,
// and then it is there. Between two steps the body is held still: no tick passes for it, however long the caller thinks. So that a server which does
// not allow flying (80 ticks in the air without sinking) does not put it out meanwhile, it is told now and then of a small move and back; see stir().
'use strict'

// Libraries greet on standard output now and then; that is the pipe.
console.log = console.info = console.warn = console.error

const mineflayer = require('mineflayer')
const ping = require('minecraft-protocol').ping
const { messages, encode } = require('./wire')
const { Chunks } = require('./chunks')
const { columnMesh } = require('./mesh')

const VERSION = '1.16.4'
const PROTOCOL = 754 // of 1.16.4 and 1.16.5
const KEYS = ['forward', 'back', 'left', 'right', 'jump', 'sneak', 'sprint']
const FARTHEST = 10 // columns of 16 blocks that are asked for in each direction
const NEAR = 1e-3 // blocks between where the body was sent and where it is
const [STIR, SUNK, NUDGE] = [700, 200, 1 / 16] // every so many ms, for so many ms, by so many blocks
const FLOAT = 0.5 // blocks below a body without ground, for it to be in the air; the game looks 0.55 down
const [ASTRAY, UNANSWERED] = [300, 4000] // ms after which a teleport is asked for again: when the server put the player elsewhere, or said nothing
const REFUSED = /permission|unknown|not allowed|incorrect|invalid|out of this world|usage/i

let session = null

// Why a session is of no use any more, and what to wait for in it.
class Session {
  constructor (name) {
    this.name = name
    this.lost = null
    this.bot = null
    this.said = []
    this.moved = 0
    this.heard = Date.now()
    this.stale = new Map()
    this.view = FARTHEST
    this.arrived = false // where it was sent to last
    this.waiting = false // for columns
    this.timer = null
  }

  lose (why) {
    if (this.lost === null) {
      this.lost = why
      this.bot.physicsEnabled = false
      clearInterval(this.timer)
      this.bot.emit('lost')
      this.bot.end()
    }
  }

  // A running server tells the time every second; one that says nothing for `seconds` hangs.
  check (seconds) {
    if (this.lost === null && Date.now() - this.heard > 1000 * seconds) this.lose(`the server has been silent for ${seconds} s`)
    if (this.lost !== null) throw new Error(this.lost)
  }

  // Waits until done() gives true, looking at every tick of the clock; fails with late() after some seconds, or when the session is lost.
  async until (done, seconds, late, quiet = seconds) {
    const end = Date.now() + 1000 * seconds
    for (;;) {
      this.check(quiet)
      if (done()) return
      if (Date.now() > end) throw new Error(late())
      await new Promise(resolve => setTimeout(resolve, 5))
    }
  }

  // Tells the server that the body sank a little, and came back a few ticks later; the body itself stays where it is. To sink is not to fly, and
  // flying-squid looks for columns to send only when a player moves (and not while it sends those of where the player was before).
  stir () {
    const { bot, chunks } = this
    if (this.lost !== null || bot.physicsEnabled || !this.arrived) return
    const { x, y, z } = bot.entity.position
    const known = bot.world.getColumn(Math.floor(x) >> 4, Math.floor(z) >> 4)
    if (!this.waiting && chunks.overlaps(x, y - FLOAT, z)) return
    const down = !known || !chunks.overlaps(x, y - NUDGE, z)
    bot._client.write('position', { x, y: down ? y - NUDGE : y + NUDGE, z, onGround: false })
    setTimeout(() => {
      if (this.lost !== null || bot.physicsEnabled) return // a step tells where it is
      const { x, y, z } = bot.entity.position
      bot._client.write('position', { x, y, z, onGround: bot.entity.onGround })
    }, SUNK)
  }

  words () {
    return this.said.length ? `; the server said: '${this.said.slice(-2).join("', '")}'` : ''
  }

  // A column came or changed: it and its neighbours look different.
  touch (i, k, border = 1) {
    this.chunks.forget(i, k)
    for (let a = i - border; a <= i + border; a++) for (let c = k - border; c <= k + border; c++) this.stale.set(`${a},${c}`, [a, c])
  }

  takeStale () {
    const columns = [...this.stale.values()]
    this.stale.clear()
    return columns
  }
}

function reason (text) {
  try {
    const told = JSON.parse(text)
    return told.text || told.translate || (told.extra || []).map(part => part.text || '').join('') || String(text)
  } catch {
    return String(text)
  }
}

function within (promise, seconds, late) {
  let timer
  const limit = new Promise((resolve, reject) => { timer = setTimeout(() => reject(new Error(late)), 1000 * seconds) })
  return Promise.race([promise, limit]).finally(() => clearTimeout(timer))
}

async function join ({ host, port, name, seconds }) {
  if (session !== null) session.lose('another session has begun')
  const where = `${host}:${port}`
  let about
  try {
    about = await within(ping({ host, port, version: VERSION, closeTimeout: 1000 * seconds, noPongTimeout: 1 }), seconds, 'no answer')
  } catch (error) {
    throw new Error(`no Minecraft server answers at ${where} (${error.code || error.message})`)
  }
  const { version } = about
  if (version.protocol !== PROTOCOL) {
    throw new Error(`the server at ${where} runs Minecraft ${version.name}, expected ${VERSION} or 1.16.5 (protocol ${PROTOCOL}, it has ${version.protocol})`)
  }
  const now = new Session(name)
  const bot = mineflayer.createBot({
    host, port, username: name, version: VERSION, auth: 'offline', viewDistance: FARTHEST, physicsEnabled: false, logErrors: false, hideErrors: true
  })
  now.bot = bot
  now.chunks = new Chunks((i, k) => bot.world ? bot.world.getColumn(i, k) : null)
  let online = false
  bot._client.on('packet', () => { now.heard = Date.now() })
  bot._client.once('encryption_begin', () => { online = true })
  bot._client.on('login', packet => { now.view = packet.viewDistance || now.view })
  bot._client.on('update_view_distance', packet => { now.view = packet.viewDistance })
  bot.on('messagestr', text => { now.said = [...now.said.slice(-4), text] })
  bot.on('chunkColumnLoad', point => now.touch(point.x >> 4, point.z >> 4))
  bot.on('chunkColumnUnload', point => now.touch(point.x >> 4, point.z >> 4, 0))
  bot.on('blockUpdate', (before, after) => {
    const block = after || before
    if (!block) return
    const { x, z } = block.position
    now.touch(x >> 4, z >> 4, (x & 15) % 15 === 0 || (z & 15) % 15 === 0 ? 1 : 0)
  })
  bot.on('forcedMove', () => { now.moved++ })
  bot.on('death', () => now.lose('the player died'))
  bot.on('kicked', text => now.lose(`the server put the player out: '${reason(text)}'`))
  bot.on('error', error => now.lose(`the connection failed (${error.message || error})`))
  bot.on('end', why => now.lose(`the server ended the connection (${why})`))
  let spawned = false
  bot.once('spawn', () => { spawned = true })
  try {
    await now.until(() => spawned && now.moved > 0, seconds, () => `the server at ${where} did not let the player '${name}' in within ${seconds} s${now.words()}`)
  } catch (error) {
    now.lose('it was never joined')
    if (online) throw new Error(`the server at ${where} asks for a Mojang account (online-mode=true), which is not supported; it said: ${error.message}`)
    throw error
  }
  session = now
  now.timer = setInterval(() => now.stir(), STIR)
  bot._client.write('look', { yaw: 0, pitch: 0, onGround: true }) // some servers send the rest of the world to a player who has looked around
  const { x, y, z } = bot.entity.position
  return [{ version: version.name, view: now.view, position: [x, y, z], spawn: [bot.spawnPoint.x, bot.spawnPoint.z], game: bot.game.gameMode }]
}

function joined (seconds = Infinity) {
  if (session === null) throw new Error('no server was joined')
  session.check(seconds)
  return session
}

// A number as a command takes it: with its point, or the game would aim at the middle of the block.
function decimal (value) {
  const text = /e/.test(String(value)) ? value.toFixed(9) : String(value)
  return text.includes('.') ? text : `${text}.0`
}

async function place ({ pose, radius, seconds }) {
  const now = joined()
  const { bot } = now
  const [x, y, z] = pose
  bot.physicsEnabled = false
  bot.clearControlStates()
  const target = `${decimal(x)} ${decimal(y)} ${decimal(z)}`
  const there = () => {
    const p = bot.entity.position
    return Math.max(Math.abs(p.x - x), Math.abs(p.y - y), Math.abs(p.z - z)) < NEAR
  }
  // The server sends view + 1 columns to each side, flying-squid one less to some.
  const reach = Math.min(radius, Math.max(now.view - 1, 1))
  const [i, k] = [Math.floor(x) >> 4, Math.floor(z) >> 4]
  const missing = () => {
    let count = 0
    for (let a = i - reach; a <= i + reach; a++) for (let c = k - reach; c <= k + reach; c++) if (!bot.world.getColumn(a, c)) count++
    return count
  }
  now.said = []
  now.arrived = false
  let [asked, moved, was, count] = [-Infinity, now.moved, false, missing()]
  try {
    await now.until(
      () => {
        now.arrived = there() // some servers say nothing to a player who is there already
        was ||= now.arrived
        count = missing()
        now.waiting = now.arrived && count > 0
        if (now.arrived) return count === 0
        if (now.said.some(text => REFUSED.test(text))) throw new Error(`the server did not move the player to ${target}${now.words()}`)
        // A move that the server took in before it heard of this may have undone it, as may the resent place of a player who has just joined.
        if (Date.now() - asked > (now.moved > moved ? ASTRAY : UNANSWERED)) {
          moved = now.moved
          asked = Date.now()
          bot.chat(`/tp ${now.name} ${target}`)
        }
        return false
      },
      seconds,
      () => !was
        ? `the server did not move the player to ${target} within ${seconds} s${now.words()}`
        : !now.arrived
            ? `the server moved the player away from ${target} while the blocks came`
            : `the server had not sent ${count} of ${(2 * reach + 1) ** 2} columns around ${target} within ${seconds} s`
    )
  } finally {
    now.waiting = false
  }
  const { entity } = bot
  entity.velocity.set(0, 0, 0)
  entity.onGround = now.chunks.overlaps(x, y - 0.001, z)
  bot.jumpTicks = 0
  bot.jumpQueued = false
  now.moved = 0
  return [{ inside: now.chunks.overlaps(x, y, z), stale: now.takeStale() }]
}

async function step ({ ticks, seconds }, payload) {
  const now = joined(seconds)
  const { bot } = now
  const [yaw, pitch, ...held] = Array.from({ length: 9 }, (_, n) => payload.readDoubleLE(8 * n))
  const [forward, back, left, right, jump, sneak, sprint] = held.map(key => key > 0.5)
  const walking = forward !== back || left !== right
  const keys = [forward, back, left, right, jump, sneak, sprint && forward && !back && !sneak] // as in player.js
  KEYS.forEach((key, n) => bot.setControlState(key, keys[n]))
  bot.entity.yaw = Math.PI - yaw * Math.PI / 180
  bot.entity.pitch = -pitch * Math.PI / 180
  const { moved } = now
  const way = []
  let blocked = false
  const tick = () => {
    const { x, y, z } = bot.entity.position
    way.push(x, y, z)
    if (walking && bot.entity.isCollidedHorizontally) blocked = true
    if (way.length === 3 * ticks) bot.physicsEnabled = false // before this tick's move is told to the server, which is told all the same
  }
  bot.on('physicsTick', tick)
  bot.physicsEnabled = true
  try {
    await now.until(() => way.length === 3 * ticks, seconds, () => `${way.length / 3} of ${ticks} ticks passed within ${seconds} s`)
  } finally {
    bot.removeListener('physicsTick', tick)
    bot.physicsEnabled = false
  }
  const { x, y, z } = bot.entity.position
  way.splice(-3, 3, x, y, z) // where the server has put it since, if it has
  return [{ blocked, corrected: now.moved - moved, moved: now.moved, stale: now.takeStale() }, Buffer.from(Float64Array.from(way).buffer)]
}

function survey ({ corner, side }) {
  const { heights, walkable, known } = joined().chunks.surface(corner[0], corner[1], side)
  return [{ known }, Buffer.concat([Buffer.from(heights.buffer), Buffer.from(walkable.buffer)])]
}

function mesh ({ columns, from }) {
  const { chunks } = joined()
  const there = columns.filter(([i, k]) => chunks.cubes(i, k) !== null)
  const meshes = there.map(([i, k]) => columnMesh(chunks.forMesher, 16 * i, 16 * k, chunks.layers(i, k), from))
  return [{ columns: there, counts: meshes.map(made => made.counts) }, Buffer.concat(meshes.map(made => made.bytes))]
}

function bodies ({ corner, size }) {
  return [{}, joined().chunks.bodies(corner, size)]
}

function hello () {
  return [{ node: process.version }]
}

const operations = { hello, join, place, step, survey, mesh, bodies }

async function main () {
  for await (const { id, header, payload } of messages()) {
    let answer
    try {
      answer = await operations[header.op](header, payload)
    } catch (error) {
      answer = [{ error: String(error.message || error) }]
    }
    process.stdout.write(encode(id, ...answer)) // waits, where fs.writeSync fails: the pipe of a process that listens does not block
  }
  process.exit(0)
}

main().catch(error => {
  console.error(error)
  process.exit(1)
})
