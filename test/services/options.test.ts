// Options and names: invalid ones are refused with a message, valid ones of any text work.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { inspect } from 'node:util'
import {
  type CallOptions,
  MemoryServices,
  type RegisterOptions,
  type RequireOptions,
  SERVICES_DEFAULTS,
  Services,
  type ServicesOptions,
} from '../../src/services/index.ts'
import { all, onBothStores } from '../support/services.ts'
import { until } from '../support/wait.ts'

const NO_NUMBERS = [-1, Number.NaN, '5', null, {}, true, 5n]
const TIMEOUT = /^a number of milliseconds from 0 and up, or Infinity$/
const KEY = /^a key of 1 to 1,024 characters$/

/** For each option: the expected type, and invalid values. */
type Wrong = Record<string, [RegExp, unknown[]]>

const SERVICES: Wrong = {
  prefix: [/^1 to 64 of A-Z/, ['', 'a b', '{tag}', 'x'.repeat(65), 5, null]],
  timeout: [TIMEOUT, NO_NUMBERS],
  lease: [/^a number of milliseconds from 100 and up$/, [99, ...NO_NUMBERS, Number.POSITIVE_INFINITY]],
  unavailableAfter: [
    /^a number of milliseconds from 1 and up$/,
    [0, ...NO_NUMBERS, Number.POSITIVE_INFINITY],
  ],
  maxMessage: [/^a whole number from 1 to 16777216$/, [0, 1.5, 2 ** 24 + 1, ...NO_NUMBERS]],
  trace: [/^a function$/, ['00-', 5, null, {}]],
  exposeError: [/^a function$/, [true, null, {}]],
  store: [/^a MemoryServices$/, ['memory', {}, null, new Map()]],
}

const REGISTER: Wrong = {
  capacity: [/^a whole number from 1 and up, or Infinity$/, [0, 1.5, ...NO_NUMBERS]],
  backlog: [/^a whole number from 0 and up, or Infinity$/, [1.5, ...NO_NUMBERS]],
  version: [/^a string of up to 128 characters$/, [5, null, {}, 'x'.repeat(129)]],
}

const REQUIRE: Wrong = {
  timeout: [TIMEOUT, NO_NUMBERS],
  wait: [TIMEOUT, NO_NUMBERS],
  choose: [/^one of "least-busy", "local-first"$/, ['random', '', null, 1]],
}

const CALL: Wrong = {
  timeout: [TIMEOUT, NO_NUMBERS],
  within: [TIMEOUT, NO_NUMBERS],
  signal: [/^an AbortSignal$/, [null, {}, new AbortController()]],
  dedupe: [KEY, ['', false, null, 5, {}, 'x'.repeat(1025)]],
  key: [KEY, ['', true, null, 5, {}, 'x'.repeat(1025)]],
  ttl: [/^a number of milliseconds from 0 and up$/, [...NO_NUMBERS, Number.POSITIVE_INFINITY]],
  onProgress: [/^a function$/, ['log', null, {}]],
}

/** Checks that each value is refused with a TypeError that names the option, the expected type and the value. */
async function allRefused(wrong: Wrong, attempt: (options: object) => unknown): Promise<void> {
  for (const [name, [expected, values]] of Object.entries(wrong)) {
    for (const value of values) {
      const what = `${name}: ${inspect(value)}`
      await assert.rejects(
        async () => attempt({ [name]: value }),
        (error) => {
          assert.ok(error instanceof TypeError, `${what}: ${error}`)
          const [, said, wanted = '', got] =
            /^Expected `([\w.]+)` to be (.*), got (.*)$/s.exec(error.message) ?? []
          assert.equal(said, name, error.message)
          assert.match(wanted, expected, what)
          assert.equal(got, `\`${String(value).slice(0, 80)}\` (${typeof value})`)
          return true
        },
      )
    }
  }
}

describe('options', () => {
  test('options - every wrong option is refused', async () => {
    await using services = new Services()
    const remote = services.require('x')
    await allRefused(SERVICES, (options) => new Services(options as ServicesOptions))
    await allRefused(REGISTER, (options) => services.register('x', options as RegisterOptions))
    await allRefused(REQUIRE, (options) => services.require('x', options as RequireOptions))
    await allRefused(CALL, (options) => remote.with(options as CallOptions))
    assert.equal(services.stats().serving, 0)
    await assert.rejects(remote.emit('y'), { code: 'E_NO_SERVICE' })
  })

  test('options - unknown names are refused, with the nearest known one', async () => {
    await using services = new Services()
    const remote = services.require('x')
    const cases: [(options: object) => unknown, string, string][] = [
      [(options) => new Services(options), 'timeOut', 'timeout'],
      [(options) => new Services(options), 'codek', 'codec'],
      [(options) => services.register('x', options), 'capasity', 'capacity'],
      [(options) => services.require('x', options), 'wiat', 'wait'],
      [(options) => remote.with(options), 'dedup', 'dedupe'],
      [(options) => remote.with(options), 'onprogress', 'onProgress'],
    ]
    for (const [attempt, name, meant] of cases) {
      const message = new RegExp(
        `^TypeError: Unknown option \`${name}\` in \`options\`; .*did you mean \`${meant}\`\\?$`,
      )
      await assert.rejects(async () => attempt({ [name]: 1 }), message)
    }
    for (const options of [null, 5, 'x']) {
      await assert.rejects(async () => new Services(options as never), TypeError)
      await assert.rejects(async () => services.register('x', options as never), TypeError)
      await assert.rejects(async () => services.require('x', options as never), TypeError)
      await assert.rejects(async () => remote.with(options as never), TypeError)
    }
    for (const codec of [{}, { encode() {} }, null, 'json'])
      assert.throws(() => new Services({ codec: codec as never }), /^TypeError: Expected `codec/)
  })

  test('options - defaults, and undefined stands for the default', async () => {
    assert.deepEqual(SERVICES_DEFAULTS, {
      ...{
        prefix: 'soloflight',
        timeout: 60_000,
        lease: 5_000,
        unavailableAfter: 2_000,
        maxMessage: 1_048_576,
      },
    })
    const undefineds = Object.fromEntries(Object.keys(SERVICES).map((name) => [name, undefined]))
    await using services = new Services({ ...undefineds, store: new MemoryServices() })
    await services.register('x', { capacity: undefined, backlog: undefined, version: undefined })
    const remote = services.require('x', { timeout: undefined, wait: undefined, choose: undefined })
    assert.ok(remote.with(Object.fromEntries(Object.keys(CALL).map((name) => [name, undefined]))))
  })
})

test('options - those that would have no effect are refused', async () => {
  await using services = new Services()
  const remote = services.require('x')
  const onlyKey = /^TypeError: Expected `key` only beside `dedupe: true`$/
  assert.throws(() => remote.with({ key: 'k' }), onlyKey)
  assert.throws(() => remote.with({ dedupe: 'a', key: 'k' }), onlyKey)
  assert.throws(() => remote.with({ dedupe: 'a' }).with({ key: 'k' }), onlyKey)
  assert.throws(() => remote.with({ ttl: 5 }), /^TypeError: Expected `ttl` only beside `dedupe`$/)
  assert.ok(remote.with({ dedupe: 'a', ttl: 5 }).with({ timeout: 5 }))
  const shared = remote.with({ dedupe: true }).with({ key: 'k' }).with({ ttl: 5 })
  const refusedWith = (mode: string) => new RegExp(`^TypeError: Expected no \`dedupe\` with \`${mode}\``)
  await assert.rejects(shared.notify('y'), refusedWith('notify'))
  await assert.rejects(shared.stream('y').next(), refusedWith('stream'))
  assert.throws(() => shared.broadcast('y'), refusedWith('broadcast'))
  await assert.rejects(shared.emit('y'), { code: 'E_NO_SERVICE' })
})

const BAD_NAMES = ['', 'x'.repeat(257), '\ud800', 'a\udc00b', undefined, null, 5, {}, Symbol('x')]

onBothStores('names - bad ones of services and events are refused', async (w) => {
  const { services, service } = await w.serve('x')
  const remote = services.require('x')
  for (const bad of BAD_NAMES as string[]) {
    await assert.rejects(
      services.register(bad),
      /^TypeError: Expected `name` to be well-formed text of 1 to 256/,
    )
    assert.throws(() => services.require(bad), /^TypeError: Expected `name`/)
    assert.throws(() => service.on(bad, () => {}), /^TypeError: Expected `event`/)
    assert.throws(() => remote.bind(bad), /^TypeError: Expected `event`/)
    for (const call of [
      remote.emit(bad),
      remote.pemit(2, bad),
      remote.notify(bad),
      remote.stream(bad).next(),
    ])
      await assert.rejects(call, /^TypeError: Expected `event`/)
    assert.throws(() => remote.broadcast(bad), /^TypeError: Expected `event`/)
  }
  assert.throws(
    () => service.on('y', 'no function' as never),
    /^TypeError: Expected `handler` to be a function/,
  )
})

const HOSTILE = [
  ...['a\nb', 'a b', ' ', '\0', '\r\n', '{x}', '}{', '*', '%', '%20', '%zz', '-', '"', '\\', '[]', 'é', '💥'],
  ...[
    '__proto__',
    'constructor',
    'toString',
    'then',
    'error',
    'newListener',
    'x'.repeat(256),
    '💥'.repeat(128),
  ],
]

onBothStores('names - hostile ones are names like others, all apart', async (w) => {
  const server = w.open()
  const caller = w.open()
  const ups = new Set<string>()
  caller.on('up', ({ service }) => ups.add(service))
  await caller.ping(caller.id)
  for (const name of HOSTILE) {
    const service = await server.register(name, { version: name.slice(0, 128) })
    for (const event of HOSTILE) service.on(event, () => [name, event])
  }
  for (const name of HOSTILE) {
    const remote = caller.require(name)
    assert.deepEqual(
      await Promise.all(HOSTILE.map((event) => remote.emit(event))),
      HOSTILE.map((event) => [name, event]),
    )
    assert.deepEqual(await all(remote.stream(name)), [[name, name]])
    assert.deepEqual(await all(remote.broadcast(name)), [{ id: server.id, result: [name, name] }])
    await w.idle(name)
  }
  await until(() => ups.size === HOSTILE.length, { what: 'all to be announced' })
  assert.deepEqual([...ups].sort(), [...HOSTILE].sort())
  for (const name of HOSTILE) await server.unregister(name)
})

onBothStores('names - `wait` and arrivals of hostile names', async (w) => {
  const caller = w.open()
  const calls = ['a\nb', '{x}', '__proto__'].map((name) => caller.require(name, { wait: 5_000 }).emit('do'))
  await caller.ping(caller.id)
  const server = w.open()
  for (const name of ['a\nb', '{x}', '__proto__']) (await server.register(name)).on('do', () => name)
  assert.deepEqual(await Promise.all(calls), ['a\nb', '{x}', '__proto__'])
})
