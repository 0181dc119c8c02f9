// Messages over a pair of pipes: 'WPMC', id of the request, bytes of JSON, bytes of payload, CRC-32 of both; all little-endian uint32.
'use strict'

const fs = require('fs')
const zlib = require('zlib')

const MAGIC = Buffer.from('WPMC')
const HEAD = 20
const LIMIT = 64 * 1024 * 1024

let table = null

// zlib.crc32 came with Node 20.15; older ones take the table.
function crc32 (buffer, value = 0) {
  if (zlib.crc32) return zlib.crc32(buffer, value)
  if (!table) {
    table = new Uint32Array(256)
    for (let n = 0; n < 256; n++) {
      let c = n
      for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0xEDB88320 : c >>> 1
      table[n] = c >>> 0
    }
  }
  let c = ~value
  for (let i = 0; i < buffer.length; i++) c = (c >>> 8) ^ table[(c ^ buffer[i]) & 255]
  return ~c >>> 0
}

// Reads exactly `size` bytes; null when the other side has closed the pipe.
function readExactly (size) {
  const buffer = Buffer.allocUnsafe(size)
  let at = 0
  while (at < size) {
    const count = fs.readSync(0, buffer, at, size - at, null)
    if (count === 0) return null
    at += count
  }
  return buffer
}

// What the head of a message says: { id, jsonBytes, bytes: of JSON and payload, sum }.
function readHead (head) {
  if (!head.subarray(0, 4).equals(MAGIC)) throw new Error('a request does not begin with WPMC')
  const [id, jsonBytes, payloadBytes, sum] = [4, 8, 12, 16].map(at => head.readUInt32LE(at))
  if (jsonBytes + payloadBytes > LIMIT) throw new Error(`a request says that it has ${jsonBytes + payloadBytes} bytes`)
  return { id, jsonBytes, bytes: jsonBytes + payloadBytes, sum }
}

function readBody ({ id, jsonBytes, sum }, body) {
  if (crc32(body) !== sum) throw new Error('the checksum of a request is wrong')
  return { id, header: JSON.parse(body.subarray(0, jsonBytes).toString()), payload: body.subarray(jsonBytes) }
}

// Waits for the next message; null when the input has ended. Nothing else happens in this process meanwhile.
function readMessage () {
  const start = readExactly(HEAD)
  if (start === null) return null
  const head = readHead(start)
  const body = readExactly(head.bytes)
  return body === null ? null : readBody(head, body)
}

// Gives the messages as they come, while this process does other things too.
async function * messages () {
  let held = Buffer.alloc(0)
  for await (const part of process.stdin) {
    held = Buffer.concat([held, part])
    while (held.length >= HEAD) {
      const head = readHead(held)
      if (held.length < HEAD + head.bytes) break
      yield readBody(head, held.subarray(HEAD, HEAD + head.bytes))
      held = held.subarray(HEAD + head.bytes)
    }
  }
}

function encode (id, header, payload = Buffer.alloc(0)) {
  const json = Buffer.from(JSON.stringify(header))
  const head = Buffer.allocUnsafe(HEAD)
  MAGIC.copy(head)
  head.writeUInt32LE(id, 4)
  head.writeUInt32LE(json.length, 8)
  head.writeUInt32LE(payload.length, 12)
  head.writeUInt32LE(crc32(payload, crc32(json)), 16)
  return Buffer.concat([head, json, payload])
}

function writeMessage (id, header, payload) {
  const all = encode(id, header, payload)
  for (let at = 0; at < all.length;) at += fs.writeSync(1, all, at)
}

module.exports = { readMessage, messages, encode, writeMessage }
