import assert from 'node:assert/strict'
import { HttpWorker } from '../../src/worker/index.ts'
import { onBothWorlds } from '../support/gateway.ts'
import { until } from '../support/wait.ts'

onBothWorlds('http worker - runs jobs and tells their results', async (world) => {
  const { url, call } = await world.open()
  await using worker = new HttpWorker<number, number>({ url, queues: 'squares', work: (job) => job * job })
  await worker.start()
  const answer = await call('POST', '/q/squares?wait=20', { body: '12' })
  assert.deepEqual([answer.status, answer.text], [200, '144'])
  await until(() => worker.stats().completed === 1, { what: 'the count' })
  await worker.stop()
  assert.deepEqual(worker.stats(), {
    ...{ running: 0, asking: 0, completed: 1, failed: 0, dead: 0, returned: 0, lost: 0 },
  })
})
