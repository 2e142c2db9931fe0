// One of the processes of examples/dedupe.ts: submits when it is told to.
import { once } from 'node:events'
import { openPages, submitTogether } from './pages.ts'

const { REDIS_URL = '', RUN = '' } = process.env
const me = `process ${process.pid}`
// It does not outlive the one that started it.
process.once('disconnect', () => process.exit())
const queue = openPages({ redis: REDIS_URL }, me)
await queue.counts()
process.send?.('ready')
await once(process, 'message')
await submitTogether(queue, me, RUN)
process.send?.('done')
// The others may still wait for what is made here.
await once(process, 'message')
await queue.close()
process.disconnect()
