// One computation for callers on two connections, and what a failure and a deadline look like.

import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { Connection, Locker, RemoteError, SoloflightError } from 'soloflight'

const redis = process.env['REDIS_URL'] ?? ''

// Another copy of the package would have classes of its own.
assert.equal(createRequire(import.meta.url)('soloflight').Locker, Locker)

/**
 * @param {Locker} here
 * @param {Locker} there
 */
async function check(here, there) {
  let runs = 0
  const work = async () => {
    runs += 1
    await new Promise((resolve) => setTimeout(resolve, 50))
    return { bytes: Buffer.from('bytes'), runs }
  }
  const callers = Array.from({ length: 10 }, (_, index) => (index % 2 ? here : there).run('report', work))
  for (const report of await Promise.all(callers)) {
    assert.equal(Buffer.from(report.bytes).toString(), 'bytes')
    assert.equal(report.runs, 1)
  }
  assert.equal(runs, 1)

  const failing = () => Promise.reject(Object.assign(new Error('no'), { code: 'E_NO' }))
  for (const failure of await Promise.all(
    [here, there].map((locker) => locker.run('failing', failing).catch((error) => error)),
  )) {
    assert.ok(failure instanceof RemoteError && failure instanceof SoloflightError)
    assert.deepEqual([failure.message, failure.remote.code], ['no', 'E_NO'])
  }

  const late = here.run(
    'late',
    ({ signal }) => new Promise((resolve) => signal.addEventListener('abort', resolve)),
    {
      timeout: 50,
    },
  )
  await assert.rejects(late, { code: 'E_TIMEOUT' })

  const ticket = await here.request('ticket')
  assert.equal(ticket.status, Locker.LOCKED)
  const waiting = there.run('ticket', () => assert.fail('it is computed elsewhere'))
  await ticket.publish('published')
  assert.equal(await waiting, 'published')

  await here.invalidate('report')
  await here.run('report', work)
  assert.equal(runs, 2)
}

{
  const locker = new Locker()
  await check(locker, locker)
  await locker.close({ grace: 0 })
}
{
  const options = { prefix: `smoke-${process.pid}` }
  const [here, there] = [new Connection(redis), new Connection(redis)]
  const lockers = [new Locker({ redis: here, ...options }), new Locker({ redis: there, ...options })]
  await check(...lockers)
  await Promise.all(lockers.map((locker) => locker.close({ grace: 0 })))
  await Promise.all([here.close(), there.close()])
}
