import { test } from 'node:test'
import { RedisQueueStore } from '../src/bus/store/redis/queues/queue-store.ts'
import { newId } from '../src/kernel/keys.ts'
import { Connection } from '../src/kernel/redis/connection.ts'
import { setup } from './support/setup.ts'
const W = 20_000
await using t = await setup()
const connection = new Connection(t.redis)
const store = new RedisQueueStore(connection, 'p')
const listen = () => store.listen({ onSignal: () => {}, onUp: () => {} }).address
const [a, b] = [listen(), listen()]
const q = 'q'
for (const address of [a, b]) await store.attach(q, { address, ttl: 30000, maxsize: 0, life: newId(), token: '', attachedTo: '', watchesHolder: false }, W)
let number = 0
const bytes = Buffer.from('x'.repeat(1000))
const push = (n: number) => store.push(q, { address: a, number: ++number, messages: Array.from({ length: n }, () => ({ key: '', kind: 'user' as const, bytes })), awaitsRoom: false }, W)
const usec = async () => { const s = String(await t.server.call('INFO', 'commandstats')); const m = /cmdstat_evalsha:calls=(\d+),usec=(\d+)/.exec(s); return [Number(m?.[1]), Number(m?.[2])] as const }
const measure = async (label: string, per: number, f: () => Promise<void>) => {
  let best = Infinity
  for (let i = 0; i < 8; i++) { const x = await usec(); await f(); const y = await usec(); best = Math.min(best, (y[1] - x[1]) / per) }
  console.log(label, best.toFixed(1))
}
await push(1)
for (const reliable of [true]) {
  await store.consume(q, { address: b, lease: 10000, reliable, exclusive: false, last: 0 }, W)
  let acked: number[] = []
  const take = async (have: number, want: number) => { const r = await store.take(q, { address: b, acked, have, want }, W); if (r.kind !== 'taken') throw new Error(r.kind); acked = r.messages.map((m) => m.id); return r.messages.length }
  const N = 1500
  await measure('push of 50, per message', N, async () => { for (let i = 0; i < N / 50; i++) await push(50) })
  await measure('take 1 ack 1', N, async () => { for (let i = 0; i < N; i++) if (await take(0, 1) !== 1) throw new Error() })
  for (let i = 0; i < 300; i++) await push(50)
  await measure('take 20 ack 20, per message', N, async () => { for (let i = 0; i < N / 20; i++) await take(0, 20) })
  for (let i = 0; i < 300; i++) await push(50)
  await measure('take 50 ack 50, per message', N, async () => { for (let i = 0; i < N / 50; i++) await take(0, 50) })
  for (;;) if (await take(0, 1000) === 0) break
  await measure('take none', 300, async () => { for (let i = 0; i < 300; i++) await take(0, 1) })
  await measure('push 1, take 1 ack 1 wait', 600, async () => { for (let i = 0; i < 600; i++) { await push(1); await take(0, 1) } })
}
await connection.close()
