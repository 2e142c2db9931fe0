import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Connection, Locker } from '../../src/index.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

setFlagsFromString('--expose-gc')
const collect: () => void = runInNewContext('gc')

/** The object that the lockers of a prefix share on a connection, without a reference to it. */
function sharedBy(connection: Connection, prefix: string): WeakRef<object> {
  const purpose = `locker:${prefix}`
  const shared = connection.acquireShared<object>(purpose, () => assert.fail('Nobody shares anything'))
  connection.releaseShared(purpose)
  return new WeakRef(shared)
}

test('shared - L5 of prefixes on one Connection nothing is left when their lockers have closed', async () => {
  await using t = await setup()
  await using connection = new Connection(t.redis)
  await using stays = new Locker({ redis: connection, prefix: 'p0' })
  const kept = new Set<WeakRef<object>>()
  for (let number = 0; number < 50; number++) {
    const locker = new Locker({ redis: connection, prefix: `p${number}` })
    assert.equal(await locker.run('key', () => number), number)
    const shared = sharedBy(connection, `p${number}`)
    await locker.close()
    if (number > 0) kept.add(shared)
  }
  const left = () => {
    collect()
    return [...kept].filter((shared) => shared.deref()).length
  }
  // The last one that was used may still be referenced.
  await until(() => left() <= 1, { what: 'everything to be collected', timeout: 10_000 })
  // For the prefix that is still used everything works, including invalidations of other processes.
  assert.equal(await stays.run('key', () => 'again'), 0)
  await using other = new Locker({ redis: t.redis, prefix: 'p0' })
  await other.invalidate('key')
  await until(() => stays.stats().cached === 0, { what: 'the invalidation to be heard' })
  await using again = new Locker({ redis: connection, prefix: 'p1' })
  assert.equal(await again.run('key', () => 'again'), 1)
})
