import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { RedisQueue } from '../../src/index.ts'
import { complaintsAbout } from '../support/queue-checker.ts'
import { type QueueProcess, QueueProcesses } from '../support/queue-process.ts'
import type { QueueEntry } from '../support/queue-protocol.ts'
import { type Setup, setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'
import { Random } from './random.ts'

const SECONDS = Number(process.env['QUEUE_CAMPAIGN_SECONDS'] ?? 8)
const SEED = Number(process.env['QUEUE_CAMPAIGN_SEED'] ?? Date.now() % 1_000_000)

const WORKERS = 4

/** Kills, freezes and blocks workers at random, by a seed. A new worker replaces each killed one. */
class Faults {
  readonly counts = { kill: 0, freeze: 0, block: 0 }
  readonly #processes: QueueProcesses
  readonly #random: Random
  readonly #t: Setup
  /** Workers that are alive, running or frozen. */
  readonly #workers = new Set<QueueProcess>()
  readonly #underWay = new Set<Promise<void>>()

  constructor(processes: QueueProcesses, t: Setup, seed: number) {
    this.#processes = processes
    this.#random = new Random(seed)
    this.#t = t
  }

  async worker(): Promise<void> {
    const lease = Math.round(this.#random.between(500, 1000))
    // A job may lose its worker any number of times here.
    const options = { lease, concurrency: 3, maxStalls: 1_000_000 }
    this.#workers.add(await this.#processes.add({ redis: this.#t.redis, ...options }))
  }

  async strike(ms: number): Promise<void> {
    const end = performance.now() + ms
    while (performance.now() < end) {
      await sleep(this.#random.between(100, 500))
      const healthy = [...this.#workers]
      // One worker is spared, so that jobs get done.
      if (healthy.length <= 1) continue
      const victim = this.#random.pick(healthy)
      this.#workers.delete(victim)
      const striking = this.#strike(victim)
      this.#underWay.add(striking)
      void striking.finally(() => this.#underWay.delete(striking))
    }
    await Promise.all(this.#underWay)
  }

  async #strike(victim: QueueProcess): Promise<void> {
    const kind = this.#random.weighted({ kill: 1, freeze: 2, block: 2 })
    const ms = this.#random.between(300, 2500)
    this.counts[kind] += 1
    if (kind === 'kill') {
      await victim.kill()
      this.#processes.note('killed', victim)
      return this.worker()
    }
    if (kind === 'block') await victim.call('block', ms)
    else {
      await victim.freeze()
      this.#processes.note('paused', victim)
      await sleep(ms)
      this.#processes.note('resumed', victim)
      victim.thaw()
    }
    this.#workers.add(victim)
  }
}

describe('the campaign', () => {
  test(`Q1 campaign - workers are killed, frozen and blocked, and everything comes to its end (seed ${SEED})`, {
    timeout: SECONDS * 1000 + 60_000,
  }, async (context) => {
    await using t = await setup()
    await using processes = new QueueProcesses()
    await using queue = new RedisQueue('q', { redis: t.redis, lease: 1000 })
    const faults = new Faults(processes, t, SEED)
    await Promise.all(Array.from({ length: WORKERS }, () => faults.worker()))
    const options = { redis: t.redis, lease: 1000 }
    const producers = await Promise.all([processes.add(options), processes.add(options)])
    const ms = SECONDS * 1000
    const produced = Promise.all(producers.map((child, index) => child.call('produce', SEED + index, ms)))
    produced.catch(() => {})
    await faults.strike(ms)

    // After the last fault everything settles.
    const overAt = performance.now()
    const patience = new Promise<never>((_, reject) => {
      setTimeout(() => reject(new Error('not everyone was settled')), 20_000).unref()
    })
    await Promise.race([produced, patience]).catch((error) => {
      throw new Error(`${error.message} (seed ${SEED})\n${complaintsAbout(processes.history).join('\n')}`)
    })
    const empty = async () => {
      const { waiting, delayed, active } = await queue.counts()
      return waiting + delayed + active === 0
    }
    await until(empty, { what: `all jobs to be over (seed ${SEED})`, timeout: 10_000, every: 50 })
    const settledAfter = performance.now() - overAt
    // The workers' messages about the last jobs are on their way.
    const told = () => complaintsAbout(processes.history).length === 0
    await until(told, { what: 'the last to be told', every: 100 }).catch(() => {})
    const complaints = complaintsAbout(processes.history)
    assert.deepEqual(complaints, [], `seed ${SEED}`)

    const count = (what: QueueEntry['what']) => processes.entries(what).length
    const settled = processes.entries('settled')
    context.diagnostic(
      `seed ${SEED}: ${JSON.stringify(faults.counts)}, ${count('asked')} asked, ${count('begun')} begun, ` +
        `${count('accepted')} accepted, ${count('lost')} lost, ${count('stalled')} stalled, ` +
        `settled ${settledAfter.toFixed(0)} ms after the last fault`,
    )
    // The run is meaningless if too little happened.
    assert.ok(settled.length > 20 * SECONDS, `${settled.length} were settled`)
    assert.ok(count('lost') > 0 && count('stalled') > 0, 'some attempts were lost')
    for (const kind of ['plain', 'shared', 'failing', 'retried', 'delayed', 'cancelled', 'left'])
      assert.ok(
        processes.entries('asked').some(({ job }) => job.startsWith(kind)),
        `none was ${kind}`,
      )
    const outcomes = settled.map(({ code }) => code ?? 'value')
    for (const outcome of ['value', 'E_CHILD', 'E_CANCELLED'])
      assert.ok(outcomes.includes(outcome), `none ended as ${outcome}: ${[...new Set(outcomes)]}`)
    assert.deepEqual(
      outcomes.filter((outcome) => ['E_TIMEOUT', 'E_STALLED'].includes(outcome)),
      [],
    )
  })
})

describe('the checker itself', () => {
  type Told = Partial<QueueEntry> & Pick<QueueEntry, 'what'>

  /** The messages, in order, 10 ms apart. */
  const history = (...entries: readonly Told[]): QueueEntry[] =>
    entries.map((entry, index) => ({ at: 1000 + 10 * index, pid: 1, job: 'j', ...entry }))

  const asked: Told = { what: 'asked', op: '1.1', single: true, waits: true }
  const acknowledged: Told = {
    what: 'acknowledged',
    op: '1.1',
    id: 'i',
    generation: 5,
    disposition: 'created',
  }
  const first: Told = { what: 'begun', pid: 2, id: 'i', fence: 10, attempt: 1 }
  const firstEnds: Told = { what: 'ended', pid: 2, id: 'i', fence: 10, value: '2/10' }
  const firstAccepted: Told = { what: 'accepted', pid: 2, id: 'i', fence: 10, kind: 'value' }
  const second: Told = { what: 'begun', pid: 3, id: 'i', fence: 11, attempt: 1 }
  const secondEnds: Told = { what: 'ended', pid: 3, id: 'i', fence: 11, value: '3/11' }
  const secondAccepted: Told = { what: 'accepted', pid: 3, id: 'i', fence: 11, kind: 'value' }
  const settled: Told = { what: 'settled', op: '1.1', kind: 'value', value: '2/10' }
  const killed = (pid: number): Told => ({ what: 'killed', pid, job: '' })
  const cancelling: Told = { what: 'cancelling', id: 'i' }
  const cancelled: Told = { what: 'cancelled', id: 'i', done: true }
  const shared: Told = { ...asked, single: false }

  const plain = [asked, acknowledged, first, firstEnds, firstAccepted, settled]
  const settledBySecond: Told = { ...settled, value: '3/11' }

  const good: Record<string, Told[]> = {
    'a job that is run and told': plain,
    'a worker that is replaced': [
      asked,
      first,
      second,
      firstEnds,
      secondEnds,
      secondAccepted,
      settledBySecond,
    ],
    'one that was killed and cannot say that it ended it': [asked, first, firstEnds, killed(2), settled],
    'a submitter that was killed': [asked, first, firstEnds, firstAccepted, killed(1)],
    'an unknown outcome of a call': [
      { ...asked, waits: false },
      { what: 'refused', op: '1.1', code: 'E_UNAVAILABLE' },
    ],
    'a submitter that knows nothing': [
      asked,
      { what: 'settled', op: '1.1', code: 'E_UNAVAILABLE', value: 'silent' },
    ],
    'a cancelled job': [
      ...[asked, acknowledged, first, cancelling, cancelled, firstEnds],
      { ...settled, kind: 'error', code: 'E_CANCELLED', value: 'The job was cancelled' },
    ],
    'a failure that is tried again': [
      ...[asked, first, { ...firstEnds, code: 'E_CHILD' }, { ...firstAccepted, kind: 'retry' } as const],
      ...[second, secondEnds, secondAccepted, settledBySecond],
    ],
    'two runs of what is asked for twice': [
      ...[shared, first, firstEnds, firstAccepted, settled, { ...shared, op: '1.2' }],
      ...[second, secondEnds, secondAccepted, { ...settledBySecond, op: '1.2' }],
    ],
  }

  const bad: Record<string, { breaks: string; entries: Told[] }> = {
    'a fence that is granted twice': { breaks: 'S1', entries: [...plain, { ...first, pid: 3 }] },
    'one that begins although it was replaced': {
      breaks: 'Q3',
      entries: [
        asked,
        second,
        ...Array(11).fill(killed(9)),
        first,
        secondEnds,
        secondAccepted,
        settledBySecond,
      ],
    },
    'a submitter who is never settled': { breaks: 'L1', entries: plain.slice(0, -1) },
    'a submitter who is settled twice': { breaks: 'L1', entries: [...plain, settled] },
    'a result that nobody made': {
      breaks: 'Q2',
      entries: [...plain.slice(0, -1), { ...settled, value: '9/9' }],
    },
    'a failure that is told as a result': {
      breaks: 'Q2',
      entries: [asked, first, { ...firstEnds, code: 'E_CHILD' }, settled],
    },
    'a cancellation that nobody asked for': {
      breaks: 'Q2',
      entries: [asked, first, { ...settled, kind: 'error', code: 'E_CANCELLED', value: 'gone' }],
    },
    'stalls where nobody died': {
      breaks: 'Q2',
      entries: [asked, first, { ...settled, kind: 'error', code: 'E_STALLED', value: 'lost' }],
    },
    'an error of an unknown kind': {
      breaks: 'Q2',
      entries: [asked, first, { what: 'settled', op: '1.1', code: 'TypeError', value: 'x' }],
    },
    'the result of one who was replaced': {
      breaks: 'Q2',
      entries: [asked, first, second, firstEnds, settled],
    },
    'two results of one run': {
      breaks: 'Q2',
      entries: [
        ...[shared, { ...shared, op: '1.2' }, first, firstEnds, second, secondEnds],
        ...[acknowledged, { ...acknowledged, op: '1.2', disposition: 'joined' }],
        ...[
          { ...settled, generation: 5 },
          { ...settledBySecond, op: '1.2', generation: 5 },
        ],
      ],
    },
    'an end by one who was replaced': {
      breaks: 'S2',
      entries: [asked, first, second, firstEnds, firstAccepted, secondEnds, settledBySecond],
    },
    'two accepted outcomes': {
      breaks: 'Q1',
      entries: [asked, first, firstEnds, second, secondEnds, firstAccepted, secondAccepted, settledBySecond],
    },
    'two accepted outcomes of a job that is shared': {
      breaks: 'Q1',
      entries: [
        shared,
        acknowledged,
        first,
        firstEnds,
        firstAccepted,
        second,
        secondEnds,
        secondAccepted,
        settled,
      ],
    },
    'a result after a cancellation': {
      breaks: 'Q1',
      entries: [asked, acknowledged, first, cancelling, cancelled, firstEnds, firstAccepted, settled],
    },
    'one that begins after the end': { breaks: 'Q1', entries: [...plain, second] },
    'a job that was acknowledged and lost': {
      breaks: 'Q1',
      entries: [{ ...asked, waits: false }, acknowledged],
    },
    'a job that was begun and forgotten': {
      breaks: 'Q1',
      entries: [{ ...asked, waits: false }, acknowledged, first, killed(2)],
    },
    'a generation that was created twice': {
      breaks: 'S6',
      entries: [
        shared,
        acknowledged,
        { ...shared, op: '1.2', waits: false },
        { ...acknowledged, op: '1.2' },
        first,
      ],
    },
  }

  for (const [name, entries] of Object.entries(good))
    test(`Q1 checker - accepts ${name}`, () => assert.deepEqual(complaintsAbout(history(...entries)), []))

  for (const [name, { breaks, entries }] of Object.entries(bad))
    test(`${breaks} checker - refuses ${name}`, () => {
      const complaints = complaintsAbout(history(...entries))
      assert.ok(
        complaints.some((complaint) => complaint.startsWith(`${breaks} j: `)),
        `it said: ${complaints.join('; ')}`,
      )
    })
})
