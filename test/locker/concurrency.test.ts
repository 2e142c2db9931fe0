import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import pDefer from 'p-defer'
import { inBothStores } from '../support/lockers.ts'
import { until } from '../support/wait.ts'

inBothStores(
  'concurrency - concurrency limits the works of a locker, which keep their leases while they wait',
  async (w) => {
    const [one, other] = [w.create({ concurrency: 2, lease: 300 }), w.create()]
    let [running, most] = [0, 0]
    const work = async ({ key }: { key: string }) => {
      most = Math.max(most, ++running)
      await sleep(150)
      running--
      return key
    }
    const keys = Array.from({ length: 6 }, (_, index) => `key${index}`)
    const runs = keys.map((key) => one.run(key, work))
    await until(() => one.stats().queued === 4, { what: 'the queue' })
    assert.equal(one.stats().running, 2)
    const stolen = other.run('key5', () => 'stolen')
    assert.deepEqual(await Promise.all(runs), keys)
    assert.equal(await stolen, 'key5')
    assert.equal(most, 2)
  },
)

inBothStores('concurrency - nested works with concurrency 1 do not block each other', async (w) => {
  const locker = w.create({ concurrency: 1, timeout: 3000 })
  const inner = () => locker.run('inner', () => 'innermost')
  const middle = () => locker.run('middle', inner)
  assert.equal(await locker.run('outer', middle), 'innermost')
  const idle = () => {
    const { running, queued, held } = locker.stats()
    return running + queued + held === 0
  }
  await until(idle, { what: 'the slots to be released' })
})

inBothStores(
  'concurrency - with concurrency 1 a work waits for a queued one without blocking it',
  async (w) => {
    const locker = w.create({ concurrency: 1, timeout: 3000 })
    const gate = pDefer()
    const outer = locker.run('outer', async () => {
      await gate.promise
      return locker.run('queued', () => 'unused')
    })
    await until(() => locker.stats().running === 1, { what: 'the outer work' })
    const queued = locker.run('queued', () => 'done')
    await until(() => locker.stats().queued === 1, { what: 'the queue' })
    gate.resolve()
    assert.deepEqual(await Promise.all([outer, queued]), ['done', 'done'])
  },
)
