// A Minecraft server on a free port of this machine, told on standard output. Its argument is JSON: {boxes, port, op, version, online, flight}.
// Lines on standard input are orders: `set x y z name` puts a block, `move x y z` puts the players there, `kick` puts them out.
'use strict'

const path = require('path')
const squid = require('flying-squid')
const { Vec3 } = require('vec3')

const wanted = JSON.parse(process.argv[2])
console.log = console.info = console.error // standard output is for answers
const server = squid.createMCServer({
  motd: 'test',
  host: '127.0.0.1',
  port: wanted.port || 0,
  'max-players': 10,
  'online-mode': Boolean(wanted.online),
  logging: false,
  gameMode: 1,
  difficulty: 0,
  generation: { name: path.join(__dirname, 'boxes.js'), options: { boxes: wanted.boxes, seed: 1 } },
  kickTimeout: 30000,
  plugins: {},
  modpe: false,
  'view-distance': 8,
  'player-list-text': { header: { text: '' }, footer: { text: '' } },
  'everybody-op': wanted.op !== false,
  'max-entities': 100,
  version: wanted.version || '1.16.5'
})
server.getSpawnPoint = async () => new Vec3(8, 10, 8) // flying-squid draws one
server.on('error', error => console.error(error))
server.on('listening', port => process.stdout.write(`\nport ${port}\n`))

// The rule of Minecraft's own server where flying is not allowed, which flying-squid has not: who moved last without sinking by 1/32 block, and has no
// block within 1/16 around the body and 0.55 below, is put out after 80 ticks.
function groundPlayer (player) {
  let [floats, ticks, last] = [false, 0, player.position]
  const moved = async ({ x, y, z }) => {
    const sinks = y - last.y < -1 / 32
    last = { x, y, z }
    floats = !sinks && await free(x, y, z)
  }
  player._client.on('position', moved)
  player._client.on('position_look', moved)
  const timer = setInterval(() => {
    ticks = floats ? ticks + 1 : 0
    if (ticks > 80) player.kick('Flying is not enabled on this server')
  }, 50)
  player._client.on('end', () => clearInterval(timer))
}

async function free (x, y, z) {
  for (let a = Math.floor(x - 0.3625); a <= Math.floor(x + 0.3625); a++) {
    for (let b = Math.floor(y - 0.6125); b <= Math.floor(y + 1.8625); b++) {
      for (let c = Math.floor(z - 0.3625); c <= Math.floor(z + 0.3625); c++) {
        if (b >= 0 && b < 256 && await server.overworld.getBlockStateId(new Vec3(a, b, c))) return false
      }
    }
  }
  return true
}
if (wanted.flight === false) server.on('newPlayer', player => player.on('spawned', () => groundPlayer(player)))

let text = ''
process.stdin.on('data', part => {
  const lines = (text + part).split('\n')
  text = lines.pop()
  for (const line of lines) {
    const [order, x, y, z, name] = line.split(' ')
    if (order === 'set') server.setBlock(server.overworld, new Vec3(+x, +y, +z), server.registry.blocksByName[name].defaultState)
    if (order === 'move') server.players.forEach(player => player.teleport(new Vec3(+x, +y, +z)))
    if (order === 'kick') [...server.players].forEach(player => player.kick('go away'))
    process.stdout.write(`\ndone ${order}\n`) // on a line of its own: flying-squid prompts there too
  }
})
process.stdin.on('end', () => process.exit(0))
