import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import pDefer from 'p-defer'
import type { WorkContext } from '../../src/index.ts'
import { inBothStores } from '../support/lockers.ts'
import { until } from '../support/wait.ts'

inBothStores(
  'progress - onProgress is called in all processes, and with the latest progress for a late waiter',
  async (w) => {
    const [one, other, late] = [w.create(), w.create(), w.create()]
    const seen: Record<string, unknown[]> = { one: [], joined: [], other: [], late: [] }
    const note = (who: string) => ({ onProgress: (value: unknown) => seen[who]?.push(value) })
    const steps = [pDefer(), pDefer(), pDefer()]
    const first = one.run(
      'key',
      async ({ progress }) => {
        for (const [index, step] of steps.entries()) {
          await step.promise
          progress({ step: index, of: Buffer.from('x') })
        }
        await until(() => seen['late']?.some((value) => (value as { step: number }).step === 2), {
          what: 'the last',
        })
        return 'done'
      },
      note('one'),
    )
    await until(async () => (await one.peek('key')).status === 'locked', { what: 'the claim' })
    const joined = one.run('key', () => 'x', note('joined'))
    const parked = other.run('key', () => 'x', note('other'))
    await until(async () => (await one.peek('key')).lock?.parked === 1, { what: 'the park' })
    const step = (index: number) => ({ step: index, of: Buffer.from('x') })
    for (const index of [0, 1]) {
      steps[index]?.resolve()
      await until(() => (seen['other']?.length ?? 0) > index, { what: `step ${index} elsewhere` })
    }
    const latecomer = late.run('key', () => 'x', note('late'))
    await until(() => seen['late']?.length, { what: 'the latest' })
    assert.deepEqual(seen['late']?.[0], step(1))
    steps[2]?.resolve()
    assert.deepEqual(await Promise.all([first, joined, parked, latecomer]), ['done', 'done', 'done', 'done'])
    const all = [step(0), step(1), step(2)]
    // A process that polls may receive the same progress again.
    const kept = (values: unknown[]) =>
      values.filter((value, at) => !isDeepStrictEqual(value, values[at - 1]))
    const shown = Object.fromEntries(Object.entries(seen).map(([who, values]) => [who, kept(values)]))
    assert.deepEqual(shown, { one: all, joined: all, other: all, late: [step(1), step(2)] })
  },
)

inBothStores('progress - onProgress is called once for each progress', async (w) => {
  const [one, other] = [w.create({ lease: 200 }), w.create()]
  const seen: unknown[] = []
  const gate = pDefer<string>()
  let runs = 0
  const work = ({ progress }: WorkContext) => {
    progress(`step of run ${++runs}`)
    return gate.promise
  }
  const first = one.run('key', work)
  await until(async () => (await one.peek('key')).status === 'locked', { what: 'the claim' })
  const parked = other.run('key', work, { onProgress: (value) => seen.push(value) })
  await until(() => seen.length, { what: 'the step' })
  await sleep(700) // the parked process polls at every end of a lease
  gate.resolve('done')
  assert.deepEqual(await Promise.all([first, parked]), ['done', 'done'])
  // A process that stands still for longer than the lease loses it: the work runs again, and shows its step anew.
  if (runs === 1) assert.deepEqual(seen, ['step of run 1'])
  else assert.ok(seen.length <= 2 * runs, `${runs} runs showed ${seen.length} steps`)
})

inBothStores('progress - progress that the codec refuses throws in the work, and ends nothing', async (w) => {
  const locker = w.create()
  const result = await locker.run('key', ({ progress }) => {
    assert.throws(() => progress(new Map()), { code: 'E_CODEC' })
    assert.throws(() => progress('x'.repeat(65 * 1024)), { code: 'E_CODEC' })
    return 'done'
  })
  assert.equal(result, 'done')
})
