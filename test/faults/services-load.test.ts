import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { assertMortal, ServicesScene } from '../support/services-scene.ts'
import { until } from '../support/wait.ts'

describe('calls are shared out', () => {
  test('V4 load - 20,000 calls over two equal processes: 45 to 55 % each', async () => {
    await using s = await ServicesScene.start(5000, [{}, {}])
    const counts = new Map<number, number>()
    let left = 20_000
    const one = async () => {
      while (left-- > 0) {
        const pid = await s.work.emit('run', { name: 'j', ms: 0, quiet: true })
        counts.set(pid, (counts.get(pid) ?? 0) + 1)
      }
    }
    await Promise.all(Array.from({ length: 200 }, one))
    assert.equal(counts.size, 2)
    for (const count of counts.values()) assert.ok(count >= 9_000 && count <= 11_000, `it had ${count}`)
    await s.idle(2)
    await assertMortal(s.t.server)
  })

  test('V4 load - ten stuck calls in one process send the next ones to the other', async () => {
    await using s = await ServicesScene.start(5000, [{}, {}])
    const first = await s.work.emit('run', { name: 'first', ms: 0 })
    const stuck: Promise<number>[] = []
    // As many to the other, which end.
    for (let n = 0; n < 10; n++) {
      stuck.push(s.work.emit('run', { name: `stuck ${n}` }), s.work.emit('run', { name: `other ${n}` }))
      await until(async () => (await s.runs()).length === 3 + 2 * n, { what: 'both to run' })
    }
    const runs = (await s.runs()).filter(({ name }) => name !== 'first')
    const mine = runs.filter(({ pid }) => pid === first)
    assert.equal(mine.length, 10)
    for (const { pid, name } of runs) if (pid !== first) await s.of(pid).child.call('finish', name)
    const other = s.other(s.of(first))
    await until(async () => (await s.loads()).get(other.id) === 0, { what: 'the other to be idle' })
    for (let n = 0; n < 20; n++)
      assert.equal(await s.work.emit('run', { name: `next ${n}`, ms: 0 }), other.child.pid)
    const nine = await Promise.all(
      Array.from({ length: 9 }, (_, n) => s.work.emit('run', { name: `at once ${n}`, ms: 50 })),
    )
    assert.deepEqual([...new Set(nine)], [other.child.pid])
    for (const { name } of mine) await s.of(first).child.call('finish', name)
    await Promise.all(stuck)
    await s.idle(2)
  })
})
