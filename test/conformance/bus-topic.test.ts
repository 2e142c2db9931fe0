// Compares the scripts of topics on a real Redis with the specification, operation by operation: the same replies, the same
// messages to the same subscribers, the same expiry. Time is an argument of both.

import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { Redis } from 'ioredis'
import { recordBase } from '../../src/bus/store/redis/keys.ts'
import { buildTopicScripts, type TopicScripts } from '../../src/bus/store/redis/topics/scripts.ts'
import { RedisTopicStore } from '../../src/bus/store/redis/topics/topic-store.ts'
import type { Resumed, TopicTerms } from '../../src/bus/store/store.ts'
import { type TopicContext, TopicRecord } from '../../src/bus/store/topic-record.ts'
import type { Connection } from '../../src/kernel/redis/connection.ts'
import { systemClock } from '../../src/kernel/time.ts'
import { until } from '../support/wait.ts'
import { EPOCH, Expiries, mutantsOf, sentTwice, TEST_CLOCK } from './bus.ts'
import { messagesArrived, testConformance, WITHIN } from './suite.ts'

const RUNS = Number(process.env['SOLOFLIGHT_RUNS'] ?? 100)
const PREFIX = 'p'
/** The second one cannot stand in a key. */
const TOPICS = ['news', 'näme }\n "\ud800'] as const
const PUBLISHERS = ['one', 'ä b\n\0'] as const

const nat = (max: number) => fc.nat({ max })
const mostly = <T>(value: T, ...others: T[]) =>
  fc.oneof({ weight: 4, arbitrary: fc.constant(value) }, fc.constantFrom(...others))
const peer = nat(2)
const topic = mostly(0, 0, 1)
const terms = fc.record({
  keep: mostly(0, 0, 1, 3, 5),
  retain: mostly(false, true),
  ttl: fc.constantFrom<number>(1000, 20_000, 90_000),
})
const op = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      type: fc.constant('publish' as const),
      peer,
      topic,
      publisher: nat(1),
      /** Of the batch, by that of the last one. */
      step: mostly(1, 0, -1, 2),
      messages: fc.array(fc.uint8Array({ maxLength: 12 }), { minLength: 1, maxLength: 4 }),
      terms,
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      type: fc.constant('resume' as const),
      peer,
      topic,
      /** The life that the subscriber knows, of those that there were, the last one first; -1: none. */
      life: mostly(0, -1, 1),
      /** Messages since the one that it knows. */
      missed: fc.integer({ min: -1, max: 6 }),
      terms,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('renew' as const),
      peer,
      terms: fc.array(terms, { minLength: 1, maxLength: 2 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('listen' as const), peer, topic }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('unlisten' as const), peer, topic }) },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('advance' as const),
      ms: fc.constantFrom(-20, 1, 999, 5000, 29_999),
    }),
  },
  /** Advances to the end of something, just before it, or just after it. */
  {
    weight: 3,
    arbitrary: fc.record({
      type: fc.constant('deadline' as const),
      topic,
      of: fc.constantFrom('e', 'until', 'publisher'),
      by: mostly(0, -1, 1),
    }),
  },
)
type Op = typeof op extends fc.Arbitrary<infer T> ? T : never
type Of<Type extends Op['type']> = Extract<Op, { type: Type }>

interface Received {
  readonly life: string
  readonly first: number
  readonly messages: readonly string[]
}

/** One listener: what the specification says that it receives, and what arrives. */
interface Listening {
  readonly expected: Received[]
  readonly received: Received[]
  end(): void
}

const hexOf = (messages: readonly Buffer[]): string[] => messages.map((message) => message.toString('hex'))
const receivedOf = (life: string, first: number, messages: readonly Buffer[]): Received => ({
  ...{ life, first, messages: hexOf(messages) },
})

/** A topic in the specification. */
class Model {
  readonly record = new TopicRecord()
  /** The lives that there were, the last one first: in the specification, and on Redis. */
  readonly lives: { readonly model: string; real: string | undefined }[] = []
  readonly numbers = PUBLISHERS.map(() => 0)
  /** Number of the last message. */
  last = 0

  /** What a life on Redis is in the specification. */
  modelOf(real: string): string {
    const known = this.lives.find((life) => life.real === real)
    if (known) return known.model
    const [newest] = this.lives
    assert.ok(newest && newest.real === undefined, 'a life that begins on Redis alone')
    newest.real = real
    return newest.model
  }
}

/** The specification and Redis, and the operations on both. */
class Worlds {
  readonly #client: Redis
  readonly #expiries: Expiries
  readonly #models = TOPICS.map(() => new Model())
  readonly #stores: RedisTopicStore[] = []
  #connections: readonly Connection[] = []
  readonly #listeners = new Map<string, Set<Listening>>()
  #time = EPOCH

  constructor(client: Redis) {
    this.#client = client
    this.#expiries = new Expiries(client)
  }

  async open(connections: readonly Connection[], scripts: TopicScripts): Promise<void> {
    this.#connections = connections
    for (const connection of connections)
      this.#stores.push(new RedisTopicStore(connection, PREFIX, { scripts }))
    await this.#setTime(EPOCH)
    await Promise.all(TOPICS.map((_, topic) => this.#listen(0, topic)))
  }

  async #setTime(to: number): Promise<void> {
    this.#time = to
    await this.#client.set('now', String(to))
  }

  #store(peer: number): RedisTopicStore {
    return this.#stores[peer] as RedisTopicStore
  }

  #model(topic: number): Model {
    return this.#models[topic] as Model
  }

  #key(topic: number): string {
    return `${recordBase(PREFIX, 'topic', TOPICS[topic] as string)}T`
  }

  #context(topic: number): TopicContext {
    const { lives } = this.#model(topic)
    return {
      now: this.#time,
      newLife: `life ${lives.length}`,
      publish: (life, first, messages) => {
        this.#begun(topic, life)
        for (const [key, listeners] of this.#listeners)
          if (key.endsWith(` ${topic}`))
            for (const { expected } of listeners) expected.push(receivedOf(life, first, messages))
      },
    }
  }

  /** A life that may be new. */
  #begun(topic: number, life: string): void {
    const model = this.#model(topic)
    if (!model.lives.some(({ model }) => model === life)) {
      model.lives.unshift({ model: life, real: undefined })
      model.last = 0
    }
  }

  async apply(op: Op): Promise<void> {
    await this.#do(op)
    await messagesArrived(this.#client, this.#connections)
    for (const [key, listeners] of this.#listeners) {
      const topic = Number(key.slice(-1))
      for (const { expected, received } of listeners) {
        const lives = received
          .splice(0)
          .map((each) => ({ ...each, life: this.#model(topic).modelOf(each.life) }))
        // How a batch is divided is not specified.
        assert.deepEqual(joined(lives), joined(expected.splice(0)), `messages to ${key}`)
      }
    }
    for (const [topic, model] of this.#models.entries()) {
      if (model.lives[0] && model.lives[0].real === undefined)
        model.modelOf((await this.#client.hget(this.#key(topic), 'life')) ?? '')
    }
    await this.#compareExpiries()
  }

  async #do(op: Op): Promise<void> {
    switch (op.type) {
      case 'publish':
        return this.#publish(op)
      case 'resume':
        return this.#resume(op)
      case 'renew':
        return this.#renew(op)
      case 'listen':
        return this.#listen(op.peer, op.topic)
      case 'unlisten': {
        const listeners = this.#listeners.get(`${op.peer} ${op.topic}`)
        const [listening] = listeners ?? []
        listening?.end()
        if (listening) listeners?.delete(listening)
        return
      }
      case 'advance':
        return this.#setTime(this.#time + op.ms)
      case 'deadline':
        return this.#deadline(op)
    }
  }

  async #publish({ peer, topic, publisher, step, messages, terms }: Of<'publish'>): Promise<void> {
    const model = this.#model(topic)
    const number = Math.max(1, (model.numbers[publisher] as number) + step)
    model.numbers[publisher] = Math.max(model.numbers[publisher] as number, number)
    const request = {
      publisher: PUBLISHERS[publisher] as string,
      number,
      messages: messages.map((message) => Buffer.from(message)),
      terms,
    }
    const expected = model.record.publish(request, this.#context(topic))
    const last = await this.#store(peer).publish(TOPICS[topic] as string, request, WITHIN)
    assert.equal(last, expected, 'reply to publish')
    model.last = Math.max(model.last, last)
  }

  async #resume({ peer, topic, life, missed, terms }: Of<'resume'>): Promise<void> {
    const model = this.#model(topic)
    const known = model.lives[life] ?? { model: '', real: '' }
    assert.ok(known.real !== undefined)
    const after = Math.max(0, model.last - missed)
    const expected = model.record.resume(known.model, after, terms, this.#context(topic))
    this.#begun(topic, expected.life)
    const resumed = await this.#store(peer).resume(TOPICS[topic] as string, known.real, after, terms, WITHIN)
    const shown = ({ life, last, messages }: Resumed) => ({ life, last, messages: hexOf(messages) })
    assert.deepEqual(
      { ...shown(resumed), life: model.modelOf(resumed.life) },
      shown(expected),
      'reply to resume',
    )
  }

  async #renew({ peer, terms }: Of<'renew'>): Promise<void> {
    const all = new Map<string, TopicTerms>()
    for (const [topic, each] of terms.entries()) {
      const before = this.#model(topic).record.isEmpty(this.#time)
      const context = this.#context(topic)
      this.#model(topic).record.renew(each, context)
      if (before) this.#begun(topic, context.newLife)
      all.set(TOPICS[topic] as string, each)
    }
    const errors = await this.#store(peer).renew(all, WITHIN)
    assert.deepEqual(
      errors,
      terms.map(() => undefined),
    )
  }

  async #listen(peer: number, topic: number): Promise<void> {
    const key = `${peer} ${topic}`
    const received: Received[] = []
    let isUp = false
    const end = this.#store(peer).listen(TOPICS[topic] as string, {
      onMessages: (life, first, messages) => received.push(receivedOf(life, first, messages)),
      onUp: () => {
        isUp = true
      },
      onDown: () => assert.fail('the subscription was lost'),
    })
    this.#listeners.set(key, (this.#listeners.get(key) ?? new Set()).add({ expected: [], received, end }))
    await until(() => isUp, { what: 'the subscription', every: 1 })
  }

  async #deadline({ topic, of, by }: Of<'deadline'>): Promise<void> {
    const key = this.#key(topic)
    const field = of === 'publisher' ? `b${PUBLISHERS[0]}` : of
    const end = Number((await this.#client.hget(key, field))?.split(' ').at(-1) ?? 0)
    if (end + by > this.#time) await this.#setTime(end + by)
  }

  /** Every key has an expiry, and outlives what it holds. */
  async #compareExpiries(): Promise<void> {
    const expiries = await this.#expiries.read(this.#time)
    for (const [topic, { record }] of this.#models.entries()) {
      const base = recordBase(PREFIX, 'topic', TOPICS[topic] as string)
      const [e, keptUntil] = (await this.#client.hmget(`${base}T`, 'e', 'until')).map(Number)
      assert.ok(e !== undefined && keptUntil !== undefined)
      assert.equal(record.isEmpty(e - 1), e === 0, 'a topic that expires too late')
      assert.ok(record.isEmpty(e), 'a topic that expires too early')
      if (e > 0) Expiries.check(`${base}T`, expiries.get(`${base}T`) ?? 0, e)
      if (keptUntil > this.#time) Expiries.check(`${base}K`, expiries.get(`${base}K`) ?? 0, keptUntil)
    }
  }

  async close(): Promise<void> {
    for (const listeners of this.#listeners.values()) for (const { end } of listeners) end()
    await this.#client.flushall()
  }
}

/** The messages of one batch may come in several parts. */
function joined(received: readonly Received[]): Received[] {
  const all: { life: string; first: number; messages: string[] }[] = []
  for (const { life, first, messages } of received) {
    const last = all.at(-1)
    if (last?.life === life && last.first + last.messages.length === first) last.messages.push(...messages)
    else all.push({ life, first, messages: [...messages] })
  }
  return all
}

const LARGE = new Uint8Array(100_000)
const noTerms: TopicTerms = { keep: 0, retain: false, ttl: 1000 }
const publish = (more: Partial<Of<'publish'>> = {}): Op => ({
  ...{ type: 'publish', peer: 1, topic: 0, publisher: 0, step: 1 },
  ...{ messages: [Uint8Array.of(1), Uint8Array.of()], terms: noTerms, ...more },
})
const resume = (more: Partial<Of<'resume'>> = {}): Op => ({
  ...{ type: 'resume', peer: 1, topic: 0, life: 0, missed: 1, terms: noTerms, ...more },
})
const deadline = (of: Of<'deadline'>['of'], by: Of<'deadline'>['by'] = 0): Op => ({
  ...{ type: 'deadline', topic: 0, of, by },
})
const advance = (ms: number): Op => ({ type: 'advance', ms }) as Op
const renew: Op = { type: 'renew', peer: 1, terms: [noTerms] }
const keep = (keep: number, ttl = 20_000): TopicTerms => ({ keep, retain: false, ttl })

/** Sequences that random operations rarely contain. They come first. */
const RARE_CASES: [Op[]][] = [
  // A batch of several bundles, kept in part.
  [
    [
      publish({ messages: [LARGE, LARGE, Uint8Array.of(7), LARGE, LARGE, LARGE], terms: keep(4) }),
      resume({ missed: 4 }),
      resume({ missed: 2 }),
    ],
  ],
  // So many messages that they do not fit on the stack of Lua.
  [
    [
      publish({
        messages: Array.from({ length: 9000 }, (_, index) => Uint8Array.of(index % 256)),
        terms: keep(8500),
      }),
      resume({ missed: 9000 }),
    ],
  ],
  // Kept messages end, and others are kept.
  [
    [
      publish({ terms: keep(3) }),
      deadline('until', -1),
      resume({ missed: 6 }),
      deadline('until'),
      resume({ missed: 6 }),
      publish(),
      resume({ missed: 6 }),
    ],
  ],
  // The kept messages keep the topic; it ends with them, and a new life begins.
  [
    [
      publish({ terms: keep(3, 90_000) }),
      deadline('e', -1),
      resume({ missed: 6 }),
      deadline('e'),
      resume({ missed: 6 }),
    ],
  ],
  // A batch is sent twice while it is remembered, afterwards, and in another life.
  [
    [
      publish(),
      publish({ step: 0 }),
      publish(),
      publish({ step: -1 }),
      advance(29_999),
      renew,
      advance(29_999),
      renew,
      deadline('publisher', -1),
      publish({ step: 0 }),
      deadline('publisher'),
      publish({ step: 0 }),
    ],
  ],
  [[publish(), deadline('e'), publish({ step: 0 })]],
  [[publish(), deadline('e'), renew, publish({ step: 0 })]],
  // Terms grow, and do not shrink.
  [
    [
      publish({ terms: keep(1) }),
      renew,
      resume({ terms: { keep: 0, retain: true, ttl: 1000 } }),
      publish({ terms: keep(3, 1000) }),
      publish(),
      resume({ missed: 6 }),
      resume({ life: -1 }),
    ],
  ],
  // Terms that grow while a batch is sent twice.
  [
    [
      publish(),
      publish({ step: 0, terms: keep(5, 90_000) }),
      publish(),
      resume({ missed: 6 }),
      deadline('e', -1),
      resume({ missed: 6 }),
    ],
  ],
  // A subscriber of an earlier life gets all.
  [
    [
      publish({ terms: keep(5, 1000) }),
      deadline('e'),
      publish({ terms: keep(5) }),
      publish(),
      resume({ life: 1, missed: 1 }),
      resume({ life: 0, missed: 1 }),
      resume({ life: -1 }),
    ],
  ],
]

/** Counterexamples of the past, shrunk. The clock of the server goes back. */
const REGRESSIONS: Record<string, Op[]> = {
  'kept messages that were seen to have ended do not come back': [
    publish({ terms: { keep: 0, retain: true, ttl: 1000 } }),
    deadline('until'),
    renew,
    advance(-20),
    resume({ life: -1 }),
  ],
  'a publisher is remembered by the clock alone': [
    publish({ terms: keep(1, 90_000) }),
    deadline('publisher'),
    renew,
    advance(-20),
    publish({ step: 0 }),
    resume({ missed: 6 }),
  ],
}

const sound = () => buildTopicScripts(TEST_CLOCK)

/** Planted bugs: a text of the scripts, and what replaces it. */
const MUTANTS: Record<string, [from: string, to: string]> = {
  'a batch that is published twice': ['num(number) <= num(lastNumber)', 'num(number) < num(lastNumber)'],
  'an earlier batch that is published twice': [
    'num(number) <= num(lastNumber)',
    'num(number) == num(lastNumber)',
  ],
  'a publisher that is remembered too long': ['num(rememberedUntil) > now', 'num(rememberedUntil) >= now'],
  'a publisher that is not remembered': ['int(now + 60000))', 'int(now + 59000))'],
  'a publisher that is remembered in another life': ['given, 0, 0, false', 'given, 0, 0, batch'],
  'fields of publishers of another life': ['if isNew then removePublishers(math.huge) end', ''],
  'a repetition that does not keep the topic': [
    '  write()\n  return num(lastBefore)',
    '  return num(lastBefore)',
  ],
  'one message too few that is kept': ['isKept and limit or #messages', 'isKept and limit - 1 or #messages'],
  'one message too many that is kept': ['isKept and limit or #messages', 'isKept and limit + 1 or #messages'],
  'kept messages that come back': ['isKept and limit or #messages', 'limit'],
  'the first messages of a batch that are kept': ['if left <= limit then', 'if left > count - limit then'],
  'messages that have ended and come back': ['keptUntil, isChanged = 0, true', ''],
  'messages that are kept too long': ['isKept = keptUntil > now', 'isKept = keptUntil >= now'],
  'messages that are kept too short': ['keptUntil = now + ttl', 'keptUntil = now + ttl - 1'],
  'a topic that ends before its messages': ['math.max(e, keptUntil), true', 'e, true'],
  'a topic that lives too long': ['writtenE <= now', 'writtenE < now'],
  'a topic that lives too short': ['writtenE <= now', 'writtenE <= now + 1'],
  'a topic that is not kept': ['now + 30000)', 'now + 29000)'],
  'terms that shrink': ['terms = larger(terms', 'terms = given or larger(terms'],
  'terms that are not written': ['isChanged = isNew or terms ~= given', 'isChanged = isNew'],
  'a retained message for nobody': ["string.match(terms, ' 1 ') and 1 or 0", '0'],
  'a retained message for everybody': ["string.match(terms, ' 1 ') and 1 or 0", '1'],
  'a subscriber of another life that misses some': [
    'local missed = last\n',
    'local missed = last - num(ARGV[4])\n',
  ],
  'a subscriber that gets too much': ['missed = last - num(ARGV[4])', 'missed = last - num(ARGV[4]) + 1'],
  'a bundle with the numbers of the one before': ['  first = first + num(ARGV[n])', ''],
  'a key without expiry': ["redis.call('PEXPIRE', key", "tostring('PEXPIRE', key"],
  'a key that ends too early': ['to - now + 60000', 'to - now - 10000'],
  'a key that is not extended': ['math.floor(from / 60000) < math.floor(to / 60000)', 'from == 0'],
}

testConformance<TopicScripts, Op>({
  name: 'topic conformance',
  title: 'B4 B5 topic conformance - the scripts do what the specification says',
  clock: systemClock,
  op,
  createWorlds: (client) => new Worlds(client),
  sound,
  runs: RUNS,
  rare: RARE_CASES,
  regressions: REGRESSIONS,
  mutants: mutantsOf(sound, MUTANTS),
  runsPerMutant: 10 * RUNS,
})

testConformance<TopicScripts, Op>({
  name: 'topic conformance, twice',
  title: 'B4 topic conformance - a script that is sent twice has the effect of one',
  clock: systemClock,
  op,
  createWorlds: (client) => new Worlds(client),
  sound: () => sentTwice(sound()),
  runs: RUNS,
  rare: RARE_CASES,
  mutants: Object.fromEntries(
    Object.entries(
      mutantsOf(sound, { 'a batch that is published twice': ['num(number) <= num(lastNumber)', 'false'] }),
    ).map(([bug, scripts]) => [bug, () => sentTwice(scripts())]),
  ),
  runsPerMutant: 10 * RUNS,
})
