// Forged messages to the processes of a queue, and forged records of jobs.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import pDefer from 'p-defer'
import { RemoteError, SoloflightError } from '../../src/index.ts'
import { onRedis, outcomeOf } from '../support/stores.ts'
import { until } from '../support/wait.ts'

/** The nonces of a waiter and of a worker, which only Redis and their processes know. */
async function placesOf(w: Awaited<ReturnType<typeof onRedis>>, id: string): Promise<string[]> {
  const fields = (await w.t.server.call('HMGET', `soloflight:1:{queue}j/${id}`, 'w', 'o')) as string[]
  for (const place of fields) assert.match(place, /^[\w-]{44}$/)
  return fields
}

test('S6 hostile - forged and malformed messages settle nothing and break nothing', async () => {
  await using w = await onRedis()
  const [here, there] = [w.open(), w.open()]
  const gate = pDefer<string>()
  const seen: unknown[] = []
  const ran: unknown[] = []
  here.process('work', (payload) => {
    ran.push(payload)
    return gate.promise
  })
  const result = there.submit('work', 'real', { onProgress: (value) => seen.push(value) })
  await until(() => ran.length === 1, { what: 'the job to run' })
  const job = await there.enqueue('work', 'real')
  const places = await placesOf(w, job.id)
  const publisher = await w.t.client()
  const bodies = [
    ...[
      '',
      'v',
      'v\nj"forged"',
      'v x\nj"forged"',
      'v -1\nj"forged"',
      'v 1e9\nj"forged"',
      'e 5x\nj{}',
      '?',
      '\0',
    ],
    ...[
      'v 99999999999999999999\nj"forged"',
      'x',
      'x y\n',
      'm',
      'p\n',
      'p\nnot what a codec wrote',
      'z 1 2\nj1',
    ],
    ...[
      'j',
      'j \n',
      `j ${job.id}`,
      `j ${job.id} 1 2 3\n"forged"`,
      `j ${job.id} a b c d e f\n"forged"`,
      's',
      't',
    ],
    ...[
      `j ${job.id} 1 2 3 4 5 6 7\n"forged"`,
      't x',
      't -5',
      `t ${'9'.repeat(30)}`,
      't 1',
      'c',
      `c ${job.id}`,
    ],
    ...[`c ${job.id} 1`, `c ${job.id} x`, 'c  ', `c ${'x'.repeat(10_000)} 5`],
  ]
  const stranger = 'A'.repeat(22)
  const forged = [
    ...Array.from({ length: 100 }, (_, length) => randomBytes(length)),
    ...[
      '',
      '1',
      '1'.repeat(23),
      '1*',
      '1*:',
      '1*5',
      '1*5:x',
      '1*99999999999999999999:x',
      '1*-5:x',
      '1*1e9:x',
      '1*\0:',
    ],
    ...[
      '1*Infinity:x',
      `1*22:${stranger}`,
      `1*23:${stranger}v22:${stranger}`,
      '1*0x20:x',
      '1* 30:x',
      '1*30 :x',
    ],
    ...places.flatMap((place) => {
      const nonce = place.slice(22)
      return [
        ...bodies.map((body) => `1${nonce}${body}`),
        ...[`2${nonce}v 5\nj"forged"`, `0${nonce}x`, `1*5:${nonce}v 5\nj"x"`, `1*9999:${nonce}v 5\nj"x"`],
        ...[`1${stranger}v 5\nj"forged"`, `1${nonce.toLowerCase()}v 5\nj"x"`.replace(nonce, stranger)],
      ]
    }),
  ].map((message) => Buffer.from(message as string))
  for (const place of places) {
    for (const message of forged) {
      assert.equal(await publisher.publish(`soloflight:1:inbox:${place.slice(0, 22)}`, message), 1)
    }
  }
  const base = 'soloflight:1:{queue}'
  const broadcasts = [
    ...['1', '1w', '1w ', `1w ${base}`, `1w ${base} x`, '1f', `1f ${base}`, `1f ${base} `, `1f ${base} x +`],
    ...[`1f ${base} ${'A'.repeat(44)} ?`, `1f ${base} ${'A'.repeat(45)} +`, `1f ${base} ${'*'.repeat(44)} +`],
    ...[`2w ${base}`, `1w ${base}\0`, '1w soloflight:1:{other}', `1w ${'x'.repeat(100_000)}`],
  ]
  for (const message of [...broadcasts, ...forged]) await publisher.publish('soloflight:1:all', message)
  // Forged followers of events are notified, a hundred of them at most.
  for (let n = 0; n < 300; n++) {
    await publisher.publish('soloflight:1:all', `1f ${base} ${String(n).padStart(44, 'A')} +`)
  }
  const settled = await Promise.race([result.then(() => true), there.counts().then(() => false)])
  assert.equal(settled, false, 'it still waits')
  gate.resolve('true result')
  assert.deepEqual(await Promise.all([result, job.result()]), ['true result', 'true result'])
  assert.deepEqual([seen, ran], [[], ['real']])
  assert.equal(await there.submit('work', 'next'), 'true result', 'all goes on')
  await until(async () => (await there.counts()).active === 0, { what: 'no job to be active' })
})

test('L1 hostile - a job record of another Redis type fails with an error of its own', async () => {
  await using w = await onRedis()
  const [here, there] = [w.open({ unavailableAfter: 1000 }), w.open({ unavailableAfter: 1000 })]
  here.process('work', (payload) => payload)
  const broken = await there.enqueue('work', 'broken', { delay: 60_000 })
  const key = `soloflight:1:{queue}j/${broken.id}`
  await w.t.server.call('DEL', key)
  await w.t.server.call('SET', key, 'x')
  const asks: Record<string, () => Promise<unknown>> = {
    submit: () => there.submit('work', 'broken'),
    enqueue: () => there.enqueue('work', 'broken'),
    result: () => broken.result({ timeout: 300 }),
    status: () => broken.status(),
    cancel: () => broken.cancel(),
    remove: () => broken.remove(),
    retry: () => broken.retry(),
  }
  for (const [name, ask] of Object.entries(asks)) {
    const { error } = await outcomeOf(ask())
    assert.ok(error instanceof SoloflightError, `${name}: ${error}`)
  }
  const together = await Promise.allSettled(
    ['good', 'broken', 'better'].map((text) => there.submit('work', text)),
  )
  assert.deepEqual(
    together.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled'],
  )
  assert.equal(await w.t.server.call('GET', key), 'x', 'it is left as it was')
})

test('L1 hostile - unknown and corrupt fields of a record affect that job only', async () => {
  await using w = await onRedis()
  // A waiter polls after a lease: on a record that seems full it cannot park.
  const [here, there] = [w.open(), w.open({ lease: 1000 })]
  const broken: Record<string, [string, string]> = {
    payload: ['p', '{"a":'],
    options: ['b', 'not json'],
    more: ['b', '{"t":"x","a":-1,"b":{"type":"odd"},"c":5}'],
    unknown: ['zz', 'x'.repeat(1000)],
    priority: ['r', 'x'],
    attempts: ['a', 'x'],
    parks: ['n', '99999'],
    place: [`@${'x'.repeat(10)}`, 'x'],
    progress: ['g', '?'],
    fence: ['f', '-1'],
  }
  await there.pause()
  const jobs = new Map<string, Awaited<ReturnType<typeof there.enqueue>>>()
  for (const [name, [field, value]] of Object.entries(broken)) {
    const job = await there.enqueue('work', name)
    await w.t.server.call('HSET', `soloflight:1:{queue}j/${job.id}`, field, value)
    jobs.set(name, job)
  }
  here.process('work', (payload) => payload, { concurrency: 3 })
  const settled = [...jobs].map(async ([name, job]) => {
    const { value, error } = await outcomeOf(job.result({ timeout: 8000 }))
    return [name, value ?? (error instanceof RemoteError ? error.remote.code : error)]
  })
  const good = there.submit('work', 'good')
  await there.resume()
  assert.equal(await good, 'good')
  assert.equal(await jobs.get('attempts')?.cancel(), true)
  const outcomes = Object.fromEntries(await Promise.all(settled))
  assert.equal(outcomes['payload'], 'E_CODEC', 'what cannot be read fails')
  assert.equal(outcomes['attempts'], 'E_CANCELLED', 'a job that reaches no worker can be cancelled')
  for (const name of ['options', 'more', 'unknown', 'priority', 'parks', 'place', 'progress']) {
    assert.equal(outcomes[name], name, 'what is not needed does no harm')
  }
})
