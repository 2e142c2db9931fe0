/** One of the processes of the demonstration on Redis: asks when it is told to, with several callers at once. */
import pDefer from 'p-defer'
import { Locker, type WorkContext } from '../../src/index.ts'
import { digestOf, makeReport } from './report.ts'
import { SETTINGS } from './settings.ts'
import { failureOf } from './stop.ts'
import type { News, Order } from './team.ts'

const { REDIS_URL = '' } = process.env
const locker = new Locker({ ...SETTINGS, redis: REDIS_URL })
/** Settled when works need no longer wait half-way. */
const goOn = pDefer<void>()

function tell(news: News): void {
  // The parent may be gone meanwhile: then nobody is to be told.
  if (process.connected) process.send?.(news, () => {})
}

async function work(folder: string, { fence, signal }: WorkContext) {
  tell({ kind: 'begun', fence })
  const began = performance.now()
  const onStep = (done: number, total: number) => {
    const half = Math.ceil(total / 2)
    if (done === half) tell({ kind: 'half-way', done, total })
    return done < half ? undefined : goOn.promise
  }
  const report = await makeReport(folder, { signal, onStep })
  tell({ kind: 'finished', ms: performance.now() - began })
  return report
}

async function ask({ folder, key, callers }: Order & { kind: 'ask' }): Promise<void> {
  const reports: string[] = []
  const failures: string[] = []
  const caller = () =>
    locker
      .run(key, (context) => work(folder, context))
      .then(
        (report) => reports.push(digestOf(report)),
        (error) => failures.push(failureOf(error)),
      )
  await Promise.all(Array.from({ length: callers }, caller))
  tell(failures.length > 0 ? { kind: 'failed', failures } : { kind: 'received', reports })
}

process.on('message', (order: Order) => {
  if (order.kind === 'ask') void ask(order)
  else goOn.resolve()
})
process.on('disconnect', () => void locker.close({ grace: 0 }).then(() => process.exit()))
tell({ kind: 'ready' })
