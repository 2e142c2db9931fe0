import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { ProcessLostError, SoloflightError } from '../../src/errors.ts'
import { EPSILON } from '../support/lockers.ts'
import { assertMortal, ServicesScene } from '../support/services-scene.ts'
import { timed, until } from '../support/wait.ts'

const LEASE = 1000

/** A caller is told within this time that its process was lost, ms. */
const LOST_WITHIN = LEASE + 1000 + EPSILON

function assertLost(error: unknown): void {
  assert.ok(error instanceof ProcessLostError, `it was ${error}`)
  assert.equal(error.ran, 'maybe')
}

// These tests mostly wait for leases to end, so two run at a time.
describe('processes that serve and fail', { concurrency: 2 }, () => {
  describe('a process is killed', () => {
    test('V3 kill - the call that it runs fails within the lease, and may have run', async () => {
      await using s = await ServicesScene.start(LEASE, [{}, {}])
      const call = timed(s.work.emit('run', { name: 'a' }))
      const { child } = await s.runner('a')
      const since = performance.now()
      await child.kill()
      const { error } = await call
      assertLost(error)
      assert.ok(performance.now() - since < LOST_WITHIN, `after ${performance.now() - since} ms`)
      await s.assertRunOnce(['a'])
      await s.idle(1)
      await assertMortal(s.t.server)
    })

    test('V3 V2 kill - the next try of pemit goes to another process', async () => {
      await using s = await ServicesScene.start(LEASE, [{}, {}])
      const call = timed(s.work.pemit(2, 'run', { name: 'a' }))
      const first = await s.runner('a')
      const since = performance.now()
      await first.child.kill()
      const second = s.other(first)
      await until(async () => (await s.runs('a')).length === 2, { what: 'the second try' })
      assert.ok(performance.now() - since < LOST_WITHIN, `after ${performance.now() - since} ms`)
      await second.child.call('finish', 'a')
      assert.equal((await call).value, second.child.pid)
      assert.deepEqual(await s.runs('a'), [
        { name: 'a', attempt: 1, pid: first.child.pid },
        { name: 'a', attempt: 2, pid: second.child.pid },
      ])
      await s.idle(1)
    })

    test('V3 kill - of all: pemit fails after its tries, emit at once', async () => {
      await using s = await ServicesScene.start(LEASE, [{}, {}])
      const call = timed(s.work.pemit(3, 'run', { name: 'a' }))
      await s.runner('a')
      await Promise.all(s.serving.map(({ child }) => child.kill()))
      const { error, ms } = await call
      assert.equal(error instanceof SoloflightError && `${error.code} ${error.ran}`, 'E_NO_SERVICE maybe')
      assert.ok(ms < LOST_WITHIN, `after ${ms} ms`)
      const { error: none, ms: after } = await timed(s.work.emit('run', { name: 'b' }))
      assert.equal(none instanceof SoloflightError && `${none.code} ${none.ran}`, 'E_NO_SERVICE no')
      assert.ok(after < EPSILON, `after ${after} ms`)
    })

    test('V3 kill - while idle: the next calls go to another at once', async () => {
      await using s = await ServicesScene.start(30_000, [{}, {}])
      const first = s.at(0)
      await first.child.kill()
      const names = Array.from({ length: 20 }, (_, index) => `j${index}`)
      for (const name of names) {
        const { value, ms } = await timed(s.work.emit('run', { name, ms: 0 }))
        assert.equal(value, s.at(1).child.pid)
        assert.ok(ms < EPSILON, `after ${ms} ms`)
      }
      await s.assertRunOnce(names)
      await s.idle(1)
    })

    test('V3 kill - while idle: the calls of one batch all go to another at once', async () => {
      await using s = await ServicesScene.start(30_000, [{}, {}])
      await s.at(0).child.kill()
      const names = Array.from({ length: 100 }, (_, index) => `j${index}`)
      const pids = await Promise.all(names.map((name) => s.work.emit('run', { name, ms: 0 })))
      assert.deepEqual([...new Set(pids)], [s.at(1).child.pid])
      await s.assertRunOnce(names)
      await s.idle(1)
    })

    test('V3 kill - in a broadcast: it ends when the killed process is lost', async () => {
      await using s = await ServicesScene.start(LEASE, [{}, {}, {}])
      const answers: unknown[] = []
      const ended = (async () => {
        for await (const answer of s.work.broadcast('run', { name: 'a' })) answers.push(answer)
      })()
      await until(async () => (await s.runs('a')).length === 3, { what: 'all to run' })
      const [first, second, third] = [s.at(0), s.at(1), s.at(2)]
      await first.child.kill()
      const since = performance.now()
      for (const { child } of [second, third]) await child.call('finish', 'a')
      await ended
      assert.ok(performance.now() - since < LOST_WITHIN, `after ${performance.now() - since} ms`)
      assert.equal(answers.length, 3)
      const byId = new Map(answers.map((answer) => [(answer as { id: string }).id, answer]))
      assert.deepEqual(byId.get(second.id), { id: second.id, result: second.child.pid })
      assert.deepEqual(byId.get(third.id), { id: third.id, result: third.child.pid })
      assertLost((byId.get(first.id) as { error: unknown }).error)
      await s.idle(2)
    })

    test('V3 kill - while idle: a broadcast does not wait for it', async () => {
      await using s = await ServicesScene.start(30_000, [{}, {}])
      await s.at(0).child.kill()
      const since = performance.now()
      const answers = []
      for await (const answer of s.work.broadcast('run', { name: 'a', ms: 0 })) answers.push(answer)
      assert.deepEqual(answers, [{ id: s.at(1).id, result: s.at(1).child.pid }])
      assert.ok(performance.now() - since < EPSILON, `after ${performance.now() - since} ms`)
      await s.idle(1)
    })

    test('V3 kill - in a stream: the reader gets what came, in order, and then the error', async () => {
      await using s = await ServicesScene.start(LEASE, [{}])
      const chunks: number[] = []
      let since = 0
      const reading = (async () => {
        for await (const chunk of s.work.stream('count', 'a', 10_000, 5)) {
          chunks.push(chunk)
          if (chunks.length !== 50) continue
          await s.at(0).child.kill()
          since = performance.now()
        }
      })()
      await assert.rejects(reading, (error: unknown) => {
        assertLost(error)
        return true
      })
      assert.ok(performance.now() - since < LOST_WITHIN, `after ${performance.now() - since} ms`)
      assert.ok(chunks.length >= 50)
      assert.deepEqual(
        chunks,
        Array.from(chunks, (_, index) => index),
      )
    })

    test('V1 V2 V3 kill - again and again under load: pemit gets through, emit is told', async () => {
      await using s = await ServicesScene.start(500, [{}, {}, {}])
      let killing = true
      const outcomes: Promise<{ name: string; ok: boolean; ran: unknown; code: unknown }>[] = []
      const loading = (async () => {
        for (let n = 0; killing; n++) {
          const name = `${n % 2 ? 'emit' : 'pemit'} ${n}`
          const task = { name, ms: 10 }
          const call = n % 2 ? s.work.emit('run', task) : s.work.pemit(6, 'run', task)
          outcomes.push(
            call.then(
              () => ({ name, ok: true, ran: 'yes', code: undefined }),
              ({ ran, code }) => ({ name, ok: false, ran, code }),
            ),
          )
          await sleep(2)
        }
      })()
      for (let round = 0; round < 5; round++) {
        await sleep(200)
        await s.at(round).child.kill()
        await s.add()
      }
      killing = false
      await loading
      const ended = await Promise.all(outcomes)
      const runs = new Map<string, number>()
      for (const { name } of await s.runs()) runs.set(name, (runs.get(name) ?? 0) + 1)
      for (const { name, ok, ran, code } of ended) {
        const count = runs.get(name) ?? 0
        if (name.startsWith('pemit')) assert.ok(ok, `${name}: ${code} ${ran}`)
        else if (!ok) assert.deepEqual([code, ran], ['E_PROCESS_LOST', 'maybe'], name)
        if (ok) assert.ok(count >= 1, `${name} ran ${count} times`)
        if (name.startsWith('emit'))
          assert.ok(count <= 1, `${name}: ${code} ${ran}, ran ${JSON.stringify(await s.runs(name))}`)
      }
      assert.ok(
        ended.some(({ ok }) => !ok),
        'none was lost',
      )
      await s.idle(3)
      await assertMortal(s.t.server)
    })
  })

  describe('a process is frozen', () => {
    for (const how of ['SIGSTOP', 'event loop'] as const) {
      test(`V2 V3 ${how} - beyond the lease: as died; then its late reply is dropped, and it serves again`, async () => {
        await using s = await ServicesScene.start(LEASE, [{}, {}])
        const call = timed(s.work.emit('run', { name: 'a' }))
        const first = await s.runner('a')
        const second = s.other(first)
        const since = performance.now()
        const blocked = how === 'SIGSTOP' ? first.child.freeze() : first.child.call('block', 3 * LEASE)
        await (how === 'SIGSTOP' ? blocked : first.child.next('blocked'))
        // Delivered to it, since it listens.
        const retried = Array.from({ length: 6 }, (_, index) => `p${index}`)
        const results = retried.map((name) => s.work.pemit(3, 'run', { name, ms: 0 }))
        const once = Array.from({ length: 6 }, (_, index) => `e${index}`)
        const calls = once.map((name) => timed(s.work.emit('run', { name, ms: 0 })))
        assertLost((await call).error)
        assert.ok(performance.now() - since < LOST_WITHIN, `after ${performance.now() - since} ms`)
        assert.deepEqual([...new Set(await Promise.all(results))], [second.child.pid])
        const lost = (await Promise.all(calls)).filter(({ error }) => error !== undefined)
        for (const { error } of lost) assertLost(error)
        assert.ok(lost.length > 0, 'none was delivered to it')
        await s.registered(1)
        if (how === 'SIGSTOP') first.child.thaw()
        await blocked
        await s.registered(2)
        const before = s.services.stats().late
        await first.child.call('finish', 'a')
        await until(() => s.services.stats().late > before, { what: 'the late reply' })
        await s.idle(2)
        // Whatever was delivered while its lease was over was refused.
        await s.assertRunOnce(['a', ...retried])
        for (const name of once) assert.ok((await s.runs(name)).length <= 1)
        const late = (await s.runs()).filter(({ pid, name }) => pid === first.child.pid && name !== 'a')
        assert.deepEqual(late, [])
        const again = await Promise.all(
          Array.from({ length: 10 }, (_, index) => s.work.emit('run', { name: `again ${index}`, ms: 50 })),
        )
        assert.equal(new Set(again).size, 2, 'both take calls')
        await s.idle(2)
      })
    }

    test('V2 SIGSTOP - for less than the lease: nothing is lost, and nothing runs twice', async () => {
      await using s = await ServicesScene.start(4000, [{}])
      await s.at(0).child.freeze()
      const names = Array.from({ length: 200 }, (_, index) => `j${index}`)
      const results = names.map((name) => s.work.emit('run', { name, ms: 0 }))
      await sleep(1500)
      s.at(0).child.thaw()
      assert.deepEqual(new Set(await Promise.all(results)), new Set([s.at(0).child.pid]))
      await s.assertRunOnce(names)
      await s.idle(1)
    })

    test('V2 SIGSTOP - of the only process beyond its lease: its calls fail, and do not run afterwards', async () => {
      await using s = await ServicesScene.start(1500, [{}])
      await s.at(0).child.freeze()
      const names = Array.from({ length: 500 }, (_, index) => `j${index}`)
      const calls = names.map((name) => timed(s.work.emit('run', { name, ms: 0, pad: 'x'.repeat(1000) })))
      for (const { error } of await Promise.all(calls)) assertLost(error)
      s.at(0).child.thaw()
      await s.registered(1)
      await s.idle(1)
      assert.equal(await s.work.emit('run', { name: 'after', ms: 0 }), s.at(0).child.pid)
      assert.deepEqual(
        (await s.runs()).map(({ name }) => name),
        ['after'],
      )
    })
  })

  describe('a process is closed', () => {
    for (const way of ['SIGTERM', 'close'] as const) {
      test(`V2 ${way} - under load: no call is lost or run twice`, async () => {
        await using s = await ServicesScene.start(5000, [{ capacity: 20, backlog: 200 }, {}, {}])
        const first = s.at(0)
        const names: string[] = []
        const results: Promise<number>[] = []
        let going = true
        const loading = (async () => {
          for (let n = 0; going; n++) {
            for (let k = 0; k < 10; k++) {
              names.push(`${n}/${k}`)
              results.push(s.work.emit('run', { name: `${n}/${k}`, ms: (n * 7 + k) % 40 }))
            }
            await sleep(3)
          }
        })()
        await until(() => names.length > 500, { what: 'the load' })
        const closed = way === 'SIGTERM' ? first.child.kill('SIGTERM') : first.child.call('close', 5000)
        await closed
        const count = names.length
        await until(() => names.length > count + 200, { what: 'the load to go on' })
        going = false
        await loading
        const settled = await Promise.allSettled(results)
        const failed = settled.flatMap((each) => (each.status === 'rejected' ? [String(each.reason)] : []))
        assert.deepEqual([...new Set(failed)], [])
        await s.assertRunOnce(names)
        if (way === 'SIGTERM') assert.deepEqual(await first.child.exited, { code: 0, signal: null })
        await s.idle(2)
        await assertMortal(s.t.server)
      })
    }

    test('V1 close - the reply of the last call arrives at once', async () => {
      await using s = await ServicesScene.start(10_000, [{}])
      const calls = ['a', 'b', 'c'].map((name) => timed(s.work.emit('run', { name })))
      await s.runner('c')
      await until(async () => (await s.runs()).length === 3, { what: 'all to run' })
      const closed = s.at(0).child.call('close', 5000)
      await s.registered(0)
      for (const name of ['a', 'b', 'c']) await s.at(0).child.call('finish', name)
      const since = performance.now()
      for (const { value } of await Promise.all(calls)) assert.equal(value, s.at(0).child.pid)
      assert.ok(performance.now() - since < EPSILON, `after ${performance.now() - since} ms`)
      await closed
    })

    test('V1 close - a call that outlasts the grace: its caller is told at once, pemit goes to another', async () => {
      await using s = await ServicesScene.start(10_000, [{ grace: 200 }])
      const one = timed(s.work.emit('run', { name: 'a' }))
      const two = s.work.pemit(2, 'run', { name: 'b' })
      await until(async () => (await s.runs()).length === 2, { what: 'both to run' })
      const second = await s.add()
      const since = performance.now()
      const exited = s.at(0).child.kill('SIGTERM')
      assertLost((await one).error)
      await until(async () => (await s.runs('b')).length === 2, { what: 'the second try' })
      assert.ok(performance.now() - since < 200 + EPSILON + 500, `after ${performance.now() - since} ms`)
      await second.child.call('finish', 'b')
      assert.equal(await two, second.child.pid)
      await exited
      await s.idle(1)
    })
  })
})
