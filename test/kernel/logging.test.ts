import assert from 'node:assert/strict'
import diagnostics from 'node:diagnostics_channel'
import { test } from 'node:test'
import {
  channelName,
  Locker,
  type Logger,
  type LogLevel,
  logTo,
  type TelemetryEvent,
  type TelemetryEvents,
} from '../../src/index.ts'
import { emit } from '../../src/kernel/telemetry.ts'
import { settled } from '../support/manual-clock.ts'

const LEVELS = ['error', 'warn', 'info', 'debug'] as const

/** An event of each kind, by the level that it has. */
const EVENTS: { [E in TelemetryEvent]: [LogLevel, TelemetryEvents[E]][] } = {
  hit: [['debug', { key: 'k', local: true }]],
  join: [['debug', { key: 'k' }]],
  grant: [
    ['debug', { key: 'k', fence: 1, takeover: false }],
    ['warn', { key: 'k', fence: 1, takeover: true }],
  ],
  park: [['debug', { key: 'k', fence: 1, trace: undefined }]],
  work: [
    ['debug', { key: 'k', fence: 1, ms: 1, failed: false }],
    ['info', { key: 'k', fence: 1, ms: 1, failed: true }],
  ],
  settle: [['debug', { key: 'k', fence: 1, failed: true }]],
  lost: [['warn', { key: 'k', fence: 1 }]],
  wait: [['debug', { key: 'k', ms: 1, outcome: 'E_TIMEOUT' }]],
  attempt: [
    ['debug', { queue: 'q', command: 'c', id: 'i', fence: 1, attempt: 1, ms: 1, failed: false }],
    ['warn', { queue: 'q', command: 'c', id: 'i', fence: 1, attempt: 1, ms: 1, failed: true }],
  ],
  serve: [
    ['debug', { service: 's', handler: 'e', id: 'i', ms: 1, failed: false }],
    ['info', { service: 's', handler: 'e', id: 'i', ms: 1, failed: true }],
  ],
  process: [
    ['info', { service: 's', process: 'p', up: true }],
    ['warn', { service: 's', process: 'p', up: false }],
  ],
  push: [
    ['debug', { queue: 'q', messages: 2, pushed: 2, ms: 1 }],
    ['info', { queue: 'q', messages: 2, pushed: 1, ms: 1 }],
  ],
  deliver: [
    ['debug', { queue: 'q', id: 1, redelivered: 0 }],
    ['info', { queue: 'q', id: 1, redelivered: 1 }],
  ],
  attachment: [
    ['info', { queue: 'q', change: 'attached' }],
    ['info', { queue: 'q', change: 'closed' }],
    ['warn', { queue: 'q', change: 'remade' }],
    ['warn', { queue: 'q', change: 'expired' }],
  ],
  gap: [['warn', { topic: 't', missed: 3 }]],
  instance: [
    ['info', { instance: 'i', up: true }],
    ['warn', { instance: 'i', up: false }],
  ],
  stale: [['debug', { key: 'k', staleFor: 1 }]],
  unverified: [['debug', { key: 'k', staleFor: 1 }]],
  bypass: [['debug', { key: 'k' }]],
  undecodable: [['warn', { key: 'k', fence: 1 }]],
  unshared: [['info', { key: 'k' }]],
  invalidationLost: [['error', { key: 'k' }]],
  'gateway:action': [
    ['info', { who: 'w', action: 'cancel', queue: 'q', id: 'i', count: undefined, status: 200 }],
    ['debug', { who: undefined, action: 'submit', queue: 'q', id: 'i', count: undefined, status: 201 }],
  ],
  hook: [['error', { hook: 'h', error: 'thrown' }]],
  connection: [
    ['info', { link: 'commands', up: true }],
    ['warn', { link: 'commands', up: false }],
  ],
}

const NAMES = Object.keys(EVENTS) as TelemetryEvent[]

type Entry = { level: LogLevel; args: unknown[] }

/** A logger that keeps what it is given. */
function recorder(): { entries: Entry[]; logger: Logger } {
  const entries: Entry[] = []
  const methods = LEVELS.map((level) => [level, (...args: unknown[]) => entries.push({ level, args })])
  return { entries, logger: Object.fromEntries(methods) as Logger }
}

function emitAll(): void {
  for (const name of NAMES) for (const [, data] of EVENTS[name]) emit(name, data as never)
}

for (const [index, level] of LEVELS.entries()) {
  test(`logTo - at ${level} every event that is severe enough is logged, at its level, and no other`, () => {
    const { entries, logger } = recorder()
    const stop = logTo(logger, level)
    emitAll()
    stop()
    const expected = NAMES.flatMap((name) => EVENTS[name].map(([at]) => `${at} ${name}`)).filter((text) =>
      LEVELS.slice(0, index + 1).some((wanted) => text.startsWith(wanted)),
    )
    const logged = entries.map(({ level: at, args: [text, fields] }) => {
      assert.match(String(text), /^soloflight: [\w ,:]+$/)
      return `${at} ${(fields as { event: string }).event}`
    })
    assert.deepEqual(logged, expected)
  })
}

test('logTo - the level is info by default', () => {
  const { entries, logger } = recorder()
  const stop = logTo(logger)
  emitAll()
  stop()
  assert.deepEqual(new Set(entries.map(({ level }) => level)), new Set(['error', 'warn', 'info']))
})

test('logTo - below the level nothing listens, and nothing does once it is stopped', () => {
  const heard = () => NAMES.filter((name) => diagnostics.hasSubscribers(channelName(name)))
  const before = heard()
  const stop = logTo(recorder().logger, 'error')
  assert.deepEqual(heard(), [...before, 'invalidationLost', 'hook'])
  stop()
  stop()
  assert.deepEqual(heard(), before)
})

test('logTo - the console, and loggers like it, get the text first; pino, and loggers like it, the fields first', () => {
  const shapes: [extra: object, fieldsFirst: boolean][] = [
    [{}, false],
    [{ log() {} }, false],
    // As winston.
    [{ log() {}, child() {} }, false],
    // As pino and bunyan.
    [{ child() {} }, true],
  ]
  for (const [extra, fieldsFirst] of shapes) {
    const { entries, logger } = recorder()
    const stop = logTo({ ...logger, ...extra }, 'warn')
    emit('lost', { key: 'k', fence: 7 })
    stop()
    const expected: unknown[] = ['soloflight: a lease was lost', { event: 'lost', key: 'k', fence: 7 }]
    assert.deepEqual(entries, [{ level: 'warn', args: fieldsFirst ? expected.reverse() : expected }])
  }
})

test('logTo - methods are called on their logger', () => {
  class Own {
    readonly lines: string[] = []
    error(text: string): void {
      this.lines.push(text)
    }
    warn = this.error
    info = this.error
    debug = this.error
  }
  const own = new Own()
  const stop = logTo(own, 'error')
  emit('invalidationLost', { key: 'k' })
  stop()
  assert.equal(own.lines.length, 1)
})

test('logTo - credentials in URLs are masked, in errors too, and an error is logged as plain data', () => {
  const { entries, logger } = recorder()
  const stop = logTo(logger, 'debug')
  emit('join', { key: 'https://user:pass@host/?access_token=abc' })
  const error = Object.assign(new Error('connect redis://user:pass@host'), {
    code: 'ECONNREFUSED',
    password: 'pass',
    cause: new Error('?token=abc'),
  })
  emit('connection', { link: 'commands', up: false, error })
  emit('hook', { hook: 'onProgress', error: 'redis://user:pass@host' })
  stop()
  assert.deepEqual(
    entries.map(({ args }) => args[1]),
    [
      { event: 'join', key: 'https://***@host/?access_token=***' },
      {
        event: 'connection',
        link: 'commands',
        up: false,
        error: {
          name: 'Error',
          message: 'connect redis://***@host',
          code: 'ECONNREFUSED',
          cause: { name: 'Error', message: '?token=***' },
        },
      },
      { event: 'hook', hook: 'onProgress', error: { name: 'Error', message: 'redis://***@host' } },
    ],
  )
})

test('logTo - what a logger throws or rejects with is a warning, and is not logged again', async () => {
  const warnings: Error[] = []
  const heed = (warning: Error) => warnings.push(warning)
  process.on('warning', heed)
  let calls = 0
  const throws = () => {
    calls++
    throw new Error('the disk is full')
  }
  const rejects = async () => {
    calls++
    throw new Error('the socket is closed')
  }
  const stop = logTo({ error: throws, warn: rejects, info: throws, debug: throws }, 'debug')
  await using locker = new Locker()
  assert.equal(await locker.run('key', () => 1), 1)
  emit('lost', { key: 'k', fence: 1 })
  emit('hook', { hook: 'h', error: 1 })
  await settled()
  stop()
  process.off('warning', heed)
  assert.equal(calls, 6)
  const texts = warnings.map(({ message }) => message).sort()
  assert.deepEqual(texts, ['`logTo` failed: the disk is full', '`logTo` failed: the socket is closed'])
})

test('logTo - several loggers do not disturb each other', () => {
  const [one, other] = [recorder(), recorder()]
  const stopOne = logTo(one.logger, 'warn')
  const stopOther = logTo(other.logger, 'warn')
  emit('lost', { key: 'k', fence: 1 })
  stopOne()
  emit('lost', { key: 'k', fence: 2 })
  stopOther()
  assert.deepEqual([one.entries.length, other.entries.length], [1, 2])
})

test('logTo - what is no logger, and what is no level, is refused', () => {
  const { logger } = recorder()
  const wrong = [undefined, null, 'console', {}, { ...logger, debug: undefined }]
  for (const given of wrong) assert.throws(() => logTo(given as never), TypeError)
  for (const level of ['trace', 'WARN', 1, null])
    assert.throws(() => logTo(logger, level as never), TypeError)
})
