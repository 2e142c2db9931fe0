import assert from 'node:assert/strict'
import { RemoteError } from '../../src/index.ts'
import { inBothStores } from '../support/lockers.ts'
import { rejectionOf } from '../support/wait.ts'

inBothStores('memoize - memoize passes this and the arguments, and runs its work once a key', async (w) => {
  const [one, other] = [w.create(), w.create()]
  let works = 0
  const key = (id: string, _options?: { deep: boolean }) => `report:${id}`
  async function make(this: { site: string }, id: string, options?: { deep: boolean }): Promise<string> {
    works++
    return `${this.site} ${id} ${options?.deep}`
  }
  const service = {
    site: 'a',
    report: one.memoize(make as (...args: [string, { deep: boolean }?]) => Promise<string>, { key }),
  }
  assert.deepEqual(await Promise.all([service.report('1', { deep: true }), service.report('1')]), [
    'a 1 true',
    'a 1 true',
  ])
  assert.equal(await service.report('2'), 'a 2 undefined')
  assert.equal(works, 2)
  assert.equal(await other.run('report:1', () => 'x'), 'a 1 true')
  const brief = other.memoize((id: number) => id * 2, { key: (id) => `double:${id}`, ttl: 0 })
  assert.deepEqual([await brief(4), await brief(5)], [8, 10])
  const throws = other.memoize(
    () => {
      throw new Error('sync')
    },
    { key: () => 'throws' },
  )
  assert.ok((await rejectionOf(throws())) instanceof RemoteError)
})

inBothStores('memoize - a memoized function rejects when its key function throws', async (w) => {
  const broken = w.create().memoize(() => 1, {
    key: () => {
      throw new Error('no key')
    },
  })
  let call: Promise<number> | undefined
  assert.doesNotThrow(() => {
    call = broken()
    call.catch(() => {})
  })
  await assert.rejects(call ?? Promise.resolve(), { message: 'no key' })
})
