import { setTimeout as sleep } from 'node:timers/promises'
import { LOCALHOST } from '../../test/support/ports.ts'
import { portOf } from '../../test/support/redis-server.ts'
import { until } from '../../test/support/wait.ts'
import { library } from '../library.ts'
import { atMost, heading, table } from '../report.ts'
import { commandsRun, type Stage } from '../stage.ts'
import { median, now, quantile } from '../statistics.ts'

const READERS = 3

type Reader = import('../../src/index.ts').Locker

/** Chunks in succession, read along by lockers that stand for processes; then the same stream once more, complete. */
export async function streams({ server, quick }: Stage): Promise<void> {
  const count = quick ? 100 : 500
  const every = 5
  heading(`streams: ${count} chunks, one every ${every} ms, ${READERS} processes read along`)
  const { Locker } = await library()
  const redis = { host: LOCALHOST, port: portOf(server) }
  const lockers = Array.from({ length: READERS + 1 }, () => new Locker({ redis, prefix: 'streams' }))
  const [producer, reader] = lockers as [Reader, Reader]
  await Promise.all(lockers.map((locker) => locker.peek('warm')))
  await until(() => lockers.every((locker) => locker.stats().subscribed), { what: 'the subscriptions' })

  const ticks = async function* (chunks: number) {
    for (let number = 0; number < chunks; number++) {
      await sleep(every)
      yield { number, at: now(), text: 'x'.repeat(20) }
    }
  }
  const delays: number[] = []
  const read = async (locker: Reader, key: string, chunks: number) => {
    for await (const { at } of locker.stream(key, () => ticks(chunks))) delays.push(now() - at)
  }
  // The server has all scripts then.
  await Promise.all(lockers.map((locker) => read(locker, 'warm', 10)))
  delays.length = 0

  await using monitor = await server.monitor()
  await server.call('CONFIG', 'RESETSTAT')
  await Promise.all(lockers.map((locker) => read(locker, 'k', count)))
  const all = (await commandsRun(server)) / count
  const sent = (await monitor.lines()).filter(
    ({ command, fromScript }) => command.startsWith('eval') && !fromScript,
  )
  await monitor[Symbol.asyncDispose]()

  const big = Array.from({ length: quick ? 2_000 : 20_000 }, (_, number) => ({
    number,
    text: 'x'.repeat(80),
  }))
  const drain = async (locker: Reader) => {
    let chunks = 0
    const since = now()
    for await (const _ of locker.stream('big', () => big)) chunks++
    return chunks / (now() - since)
  }
  const made = await drain(producer)
  const replays: number[] = []
  for (let time = 0; time < 5; time++) replays.push(await drain(reader))
  await Promise.all(lockers.map((locker) => locker.close({ grace: 0 })))

  table(
    ['', 'value'],
    [
      ['scripts that clients sent, a chunk', (sent.length / count).toFixed(2)],
      ['Redis commands, inside scripts too, a chunk', all.toFixed(1)],
      ['from yield to reader, median, ms', median(delays).toFixed(2)],
      ['from yield to reader, p99, ms', quantile(delays, 0.99).toFixed(2)],
      ['produced in one go, chunks a ms', made.toFixed(0)],
      ['replayed, chunks a ms', median(replays).toFixed(0)],
    ],
  )
  const perChunk = sent.length / count
  const scripts = `scripts sent for a chunk that ${READERS + 1} processes receive`
  atMost(scripts, perChunk, quick ? 1.6 : 1.2, { kind: 'count', digits: 2 })
  atMost('from the yield of a chunk to a reader in another process, median', median(delays), 5, {
    unit: ' ms',
  })
}
