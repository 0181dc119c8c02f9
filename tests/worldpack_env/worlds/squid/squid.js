// A Minecraft server on a free port of this machine, told on standard output. Its argument is JSON: {boxes, port, op, version, online}.
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
