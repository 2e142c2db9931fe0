import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe, test } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { encodeWith, jsonCodec } from '../../src/kernel/codec/codec.ts'
import { newId } from '../../src/kernel/keys.ts'
import { callMessage, MAX_QUERY } from '../../src/services/messages.ts'
import { assertMortal } from '../support/services-scene.ts'
import { namesOf, ServicesWire, WIRED } from '../support/services-wire.ts'
import { until } from '../support/wait.ts'

const INBOX = 'soloflight:1:inbox:'
const ALL = 'soloflight:1:all'
const KINDS = [...'cakqswvenlrpdmiox?*']
const PIECES = [
  '',
  '0',
  '-1',
  '1',
  '9007199254740993',
  '9999999999999999',
  'NaN',
  '__proto__',
  'constructor',
  '%',
  '%E0%A4%A',
  '-',
  'r',
  's',
  'b',
  'lease',
  'event',
  '.',
  WIRED,
  'echo',
]

/** Publishes as anybody can who knows the address. */
function publisher(s: ServicesWire, to: string): (text: string, body?: Buffer) => Promise<unknown> {
  return async (text, body = Buffer.alloc(0)) => {
    const client = await hostile(s)
    const head = Buffer.from(`1${to.slice(22)}${text}\n`)
    return client.publish(INBOX + to.slice(0, 22), Buffer.concat([head, body]) as unknown as string)
  }
}

const clients = new WeakMap<ServicesWire, ReturnType<ServicesWire['t']['client']>>()
function hostile(s: ServicesWire): ReturnType<ServicesWire['t']['client']> {
  const known = clients.get(s) ?? s.t.client()
  clients.set(s, known)
  return known
}

function pick<T>(items: readonly T[]): T {
  return items[Math.floor(Math.random() * items.length)] as T
}

describe('hostile messages', () => {
  test('U3 inbox - malformed and forged messages of every kind: nothing crashes, calls go on', async () => {
    await using s = await ServicesWire.start(1, { lease: 5000 })
    const ids = [s.caller.services.id, s.at(0).services.id]
    const fields = [...PIECES, ...ids, newId(), `${newId()}.1`, `${newId()}.9999999999999999`]
    for (const to of ids) {
      const publish = publisher(s, to)
      const all: Promise<unknown>[] = []
      for (const kind of KINDS) {
        for (let n = 0; n < 150; n++) {
          const count = Math.floor(Math.random() * 12)
          const text = [kind, ...Array.from({ length: count }, () => pick(fields))].join(' ')
          all.push(publish(text, randomBytes(n % 40)))
        }
      }
      all.push(publish(''), publish(' '), publish('c'.repeat(100_000)), publish('q '.repeat(10_000)))
      await Promise.all(all)
    }
    const names = namesOf(100)
    assert.deepEqual(await Promise.all(names.map((name) => s.remote.emit('echo', name))), names)
    s.assertOnce(names)
  })

  test('U3 V1 inbox - answers of others to calls that run: only those with the right id count, and none crashes', async () => {
    await using s = await ServicesWire.start(1, { lease: 5000 })
    const hold = s.holding()
    const names = namesOf(20)
    const results = Promise.all(names.map((name) => s.remote.emit('echo', name)))
    await until(() => s.runs.length === 20, { what: 'all to run' })
    const publish = publisher(s, s.caller.services.id)
    const server = s.at(0).services.id
    for (const kind of ['v', 'e', 'n', 'l', 'p', 'd'])
      for (let n = 0; n < 100; n++)
        await publish(`${kind} ${newId()} ${server} ${pick(PIECES)} 1`, randomBytes(10))
    hold.resolve()
    assert.deepEqual(await results, names)
    await s.idle()
  })

  test('U3 broadcast channel - malformed and forged announcements: nothing crashes, calls go on', async () => {
    await using s = await ServicesWire.start(1, { lease: 5000 })
    const client = await hostile(s)
    const heard: unknown[] = []
    s.caller.services.on('up', (info) => heard.push(info))
    s.caller.services.on('down', (info) => heard.push(info))
    const values = [
      ...[
        '',
        '[]',
        '{}',
        '[1]',
        '["a"]',
        '["a","b","c"]',
        '[null,null,null]',
        `["${WIRED}","name"]`,
        '[['.repeat(5000),
      ],
      ...[`["${s.at(0).services.id}"]`, `["${WIRED}","${s.at(0).services.id}","{}"]`],
      `["${WIRED}","${s.at(0).services.id}",${JSON.stringify('{"id":1,"host":{},"pid":"x"}')}]`,
      JSON.stringify([WIRED, s.at(0).services.id, 'x'.repeat(300_000)]),
    ]
    for (const letter of 'udsrx?')
      for (const value of values) await client.publish(ALL, `1s${letter} soloflight ${value}`)
    for (let n = 0; n < 500; n++) await client.publish(ALL, randomBytes(n) as unknown as string)
    const names = namesOf(100)
    assert.deepEqual(await Promise.all(names.map((name) => s.remote.emit('echo', name))), names)
    assert.deepEqual(heard, [])
    s.assertOnce(names)
    await s.idle()
    await assertMortal(s.t.server)
  })

  test('L5 memory - a flood of forged calls, questions, aborts and answers stays bounded', {
    timeout: 60_000,
  }, async () => {
    await using s = await ServicesWire.start(1, { lease: 20_000 })
    const server = publisher(s, s.at(0).services.id)
    const caller = publisher(s, s.caller.services.id)
    const from = `${newId()}${newId()}`
    const flood = async (count: number) => {
      for (let n = 0; n < count; n += 500) {
        const all: Promise<unknown>[] = []
        for (let k = 0; k < 500; k++) {
          const attempt = { id: newId(), from, left: 1000, attempt: 1, turn: 1 }
          const event = k % 2 ? 'nothing' : 'echo'
          const args = encodeWith(jsonCodec, ['x'.repeat(500)])
          const call = callMessage(attempt, { mode: 'reply', service: WIRED, event, trace: undefined, args })
          all.push(server([call.kind, '1', ...call.fields].join(' '), call.body))
          all.push(server(`a ${newId()}`), server(`k ${newId()} 5`), caller(`v ${newId()} ${from}`))
          if (k === 0)
            all.push(
              server(`q ${from} 0 ${Array.from({ length: MAX_QUERY }, () => `${newId()}.1`).join(' ')}`),
            )
        }
        await Promise.all(all)
        s.runs.length = 0
      }
    }
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    const heap = () => {
      for (let round = 0; round < 3; round++) collect()
      return process.memoryUsage().heapUsed
    }
    await flood(2_000)
    const before = heap()
    await flood(4_000)
    const grown = heap() - before
    // A call that has ended is known for ten minutes, without its arguments.
    assert.ok(grown < 16 * 1024 * 1024, `the heap has grown by ${grown} bytes`)
    const names = namesOf(100)
    assert.deepEqual(await Promise.all(names.map((name) => s.remote.emit('echo', name))), names)
    await s.idle()
  })
})
