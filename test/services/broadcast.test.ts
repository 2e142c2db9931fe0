// Calls to all processes, calls without a reply, and messages between Services objects.

import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import pDefer from 'p-defer'
import {
  ClosedError,
  ProcessLostError,
  RemoteError,
  TimeoutError,
  UnknownEventError,
} from '../../src/errors.ts'
import type { Call } from '../../src/services/index.ts'
import { all, onBothStores } from '../support/services.ts'
import { soon, timed, until } from '../support/wait.ts'

onBothStores('broadcast - each process once, with its result or its error, and an end', async (w) => {
  const runs: string[] = []
  const ids: string[] = []
  for (let n = 0; n < 4; n++) {
    const { services, service } = await w.serve('fleet')
    ids.push(services.id)
    if (n === 3) continue
    service.on('clear', async (what: string, call: Call) => {
      runs.push(services.id)
      assert.deepEqual([what, call.attempt], ['cache', 1])
      await sleep(n * 20)
      if (n === 2) throw new RangeError('third')
      return n
    })
  }
  const answers = new Map(
    (await all(w.open().require('fleet').broadcast('clear', 'cache'))).map((each) => [each.id, each]),
  )
  assert.deepEqual([...answers.keys()].sort(), [...ids].sort())
  assert.deepEqual(runs.sort(), ids.slice(0, 3).sort())
  for (const n of [0, 1]) assert.deepEqual(answers.get(ids[n] as string), { id: ids[n], result: n })
  const errors = [2, 3].map((n) => answers.get(ids[n] as string) as unknown as { error: RemoteError })
  assert.ok(errors[0]?.error instanceof RemoteError && errors[0].error.remote.name === 'RangeError')
  assert.equal(errors[0]?.error.ran, 'yes')
  assert.ok((errors[1]?.error as unknown) instanceof UnknownEventError && errors[1]?.error.ran === 'no')
  await w.idle('fleet')
})

onBothStores('broadcast - nobody serves it: it ends', async (w) => {
  assert.deepEqual(await soon(all(w.open().require('none').broadcast('clear')), 1_000), [])
})

onBothStores('broadcast - a process that is full is called as well', async (w) => {
  const { service } = await w.serve('fleet', { capacity: 1 })
  const gate = pDefer()
  let sticks = 0
  service.on('stick', () => {
    sticks++
    return gate.promise
  })
  service.on('clear', () => 'cleared')
  const remote = w.open().require('fleet')
  const stuck = remote.emit('stick')
  await until(() => sticks === 1, { what: 'the process to be full' })
  const answers = (await all(remote.broadcast('clear'))) as { result: unknown }[]
  assert.deepEqual(
    answers.map(({ result }) => result),
    ['cleared'],
  )
  await assert.rejects(remote.emit('stick'), { code: 'E_BUSY' })
  gate.resolve()
  await stuck
  await w.idle('fleet')
})

onBothStores('broadcast - V1 those that do not answer in time, and those that close', async (w) => {
  const closing = await w.serve('fleet')
  const slow = await w.serve('fleet')
  const quick = await w.serve('fleet')
  const signals: unknown[] = []
  const hang = (call: Call) =>
    new Promise<void>(() => call.signal.addEventListener('abort', () => signals.push(call.signal.reason)))
  closing.service.on('clear', hang)
  slow.service.on('clear', hang)
  quick.service.on('clear', () => 'quick')
  const remote = w.open().require('fleet')
  const since = performance.now()
  const broadcast = all(remote.with({ timeout: 400 }).broadcast('clear'))
  await sleep(100)
  await closing.services.close({ grace: 0 })
  const value = await broadcast
  const ms = performance.now() - since
  assert.ok(ms >= 399 && ms < 1_000, `${ms}`)
  const answers = new Map(
    (value as { id: string; result?: unknown; error?: Error & { ran?: string } }[]).map((each) => [
      each.id,
      each,
    ]),
  )
  assert.equal(answers.size, 3)
  assert.equal(answers.get(quick.services.id)?.result, 'quick')
  const lost = answers.get(closing.services.id)?.error
  assert.ok(lost instanceof ProcessLostError && lost.ran === 'maybe', `${lost}`)
  const late = answers.get(slow.services.id)?.error
  assert.ok(late instanceof TimeoutError && late.ran === 'maybe', `${late}`)
  await until(() => signals.length === 2, { what: 'both signals' })
})

onBothStores('broadcast - leaving the loop, and a signal, abort the handlers', async (w) => {
  let aborted = 0
  for (let n = 0; n < 2; n++) {
    const { service } = await w.serve('fleet')
    service.on('clear', async (call: Call) => {
      if (n === 0) return 'quick'
      await new Promise((resolve) => call.signal.addEventListener('abort', resolve))
      aborted++
    })
  }
  const caller = w.open()
  const remote = caller.require('fleet')
  for await (const { id } of remote.broadcast('clear')) {
    assert.ok(id)
    break
  }
  await until(() => aborted === 1, { what: 'the first signal' })
  const abort = new AbortController()
  const answers = all(remote.with({ signal: abort.signal }).broadcast('clear'))
  await sleep(50)
  abort.abort()
  const codes = (await answers).map((each) =>
    'error' in each ? (each.error as { code?: string }).code : 'result',
  )
  assert.deepEqual(codes.sort(), ['E_ABORTED', 'result'])
  await until(() => aborted === 2, { what: 'the second signal' })
  assert.equal(caller.stats().calling, 0)
  const closed = timed(all(remote.broadcast('clear')))
  await sleep(50)
  await caller.close({ grace: 0 })
  assert.ok((await closed).error instanceof ClosedError)
  await until(() => aborted === 3, { what: 'the third signal' })
  await w.idle('fleet')
})

onBothStores('notify - one process has it; nothing comes back', async (w) => {
  const seen: unknown[] = []
  for (let n = 0; n < 2; n++) {
    const { service } = await w.serve('log')
    service.on('line', (line: string, call: Call) => {
      seen.push(line)
      call(new Error('nobody hears'))
    })
  }
  const caller = w.open()
  assert.equal(await caller.require('log').notify('line', 'a'), undefined)
  await until(() => seen.length > 0, { what: 'the line' })
  await w.idle('log')
  assert.deepEqual(seen, ['a'])
  await caller.require('log').notify('unknown')
  await w.idle('log')
  assert.equal(caller.stats().late, 0)
})

onBothStores('messages - between any two objects, and to oneself', async (w) => {
  const [one, two] = [w.open(), w.open()]
  const heard: unknown[][] = []
  one.on('message', (from, message) => heard.push(['one', from, message]))
  two.on('message', (from, message) => heard.push(['two', from, message]))
  await Promise.all([one.ping(one.id), two.ping(two.id)])
  const values = ['text', 5, null, undefined, { deep: [Buffer.from('x')] }]
  for (const value of values) assert.equal(await one.send(two.id, value), true)
  assert.equal(await two.send(one.id, 'back'), true)
  assert.equal(await one.send(one.id, 'self'), true)
  await until(() => heard.length === 7, { what: 'all messages' })
  assert.deepEqual(
    heard.filter(([to]) => to === 'two').map((each) => each.slice(1)),
    values.map((value) => [one.id, value]),
  )
  assert.deepEqual(
    heard.filter(([to]) => to === 'one').sort(),
    [
      ['one', two.id, 'back'],
      ['one', one.id, 'self'],
    ].sort(),
  )
  await assert.rejects(one.send(two.id, new Map()), { code: 'E_CODEC' })
  for (const id of ['', 'short', `${two.id} `, undefined, null, 5, {}])
    await assert.rejects(one.send(id as string, 'x'), /^TypeError: Expected `id` to be/, `${id}`)
  await two.close()
  await until(async () => !(await one.send(two.id, 'nobody')), { what: 'the server to see it gone' })
})

onBothStores(
  'messages - ping: the time that another takes; nobody hears: TimeoutError at once',
  async (w) => {
    const [one, two] = [w.open(), w.open()]
    await two.ping(two.id)
    for (const id of [two.id, one.id]) {
      const ms = await one.ping(id)
      assert.ok(ms >= 0 && ms < 500, `${ms}`)
    }
    await two.close()
    await until(async () => !(await one.send(two.id, 'nobody')), { what: 'the server to see it gone' })
    const { error, ms } = await timed(one.ping(two.id))
    assert.ok(error instanceof TimeoutError && ms < 1_000, `${error}`)
    await assert.rejects(one.ping('nonsense'), TypeError)
    await one.close()
    await assert.rejects(one.ping(two.id), ClosedError)
    await assert.rejects(one.send(two.id, 1), ClosedError)
  },
)

onBothStores(
  'broadcast - `return` before the first read, and during one, ends it and tells the handlers',
  async (w) => {
    let [started, aborted] = [0, 0]
    for (let n = 0; n < 2; n++) {
      const { service } = await w.serve('fleet')
      service.on('clear', async (call: Call) => {
        started++
        await new Promise((resolve) => call.signal.addEventListener('abort', resolve))
        aborted++
      })
    }
    const caller = w.open()
    const end = { done: true, value: undefined }
    const unread = caller.require('fleet').broadcast('clear')
    assert.deepEqual(await unread.return?.(), end)
    assert.equal(caller.stats().calling, 0)
    assert.deepEqual(await unread.next(), end)
    const read = caller.require('fleet').broadcast('clear')
    const pending = read.next()
    await until(() => started >= 2, { what: 'the handlers' })
    assert.deepEqual(await soon(Promise.all([read.return?.(), pending])), [end, end])
    assert.equal(caller.stats().calling, 0)
    await w.idle('fleet')
    assert.equal(aborted, started)
  },
)
