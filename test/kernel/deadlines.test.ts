import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Clock, Deadlines, type Pending, type Timer } from '../../src/kernel/time.ts'

/** A clock that stands still until it is set, and counts its timers. */
class SteppedClock implements Clock {
  time = 0
  readonly timers = new Map<object, { at: number; run: () => void }>()

  now(): number {
    return this.time
  }

  after(ms: number, run: () => void): Timer {
    const id = {}
    this.timers.set(id, { at: this.time + ms, run })
    return { cancel: () => this.timers.delete(id) }
  }

  to(time: number): void {
    for (;;) {
      const due = [...this.timers].filter(([, { at }]) => at <= time).sort(([, a], [, b]) => a.at - b.at)[0]
      if (!due) break
      this.timers.delete(due[0])
      this.time = Math.max(this.time, due[1].at)
      due[1].run()
    }
    this.time = time
  }
}

class Item implements Pending {
  deadline = 0
  expiredAt: number | undefined
  readonly #clock: Clock

  constructor(clock: Clock) {
    this.#clock = clock
  }

  expire(): void {
    this.expiredAt = this.#clock.now()
  }
}

test('L1 deadlines - each expires at its time, and not before', () => {
  const clock = new SteppedClock()
  const deadlines = new Deadlines(clock)
  const durations = [0, 1, 20, 999, 1000, 1001, 1013, 1024, 60_000, 60_001.5]
  const items = durations.map((within) => {
    const item = new Item(clock)
    deadlines.add(item, within)
    return item
  })
  clock.to(100_000)
  for (const [at, within] of durations.entries()) {
    const late = (items[at]?.expiredAt ?? Number.NaN) - within
    assert.ok(late >= 0 && late <= 25, `${within} ms: ${late} ms late`)
  }
  assert.equal(clock.timers.size, 0)
})

test('L5 deadlines - operations that end in time leave nothing behind', () => {
  const clock = new SteppedClock()
  const deadlines = new Deadlines(clock)
  for (let within = 0; within < 5000; within += 0.7) {
    const item = new Item(clock)
    deadlines.add(item, within)
    deadlines.delete(item, within)
  }
  assert.equal(clock.timers.size, 0)
})

test('L5 deadlines - deadlines of any length share few timers', () => {
  const clock = new SteppedClock()
  const deadlines = new Deadlines(clock)
  for (let count = 0; count < 60_000; count++) deadlines.add(new Item(clock), count + 0.5)
  assert.ok(clock.timers.size < 4000, `${clock.timers.size} timers`)
})

test('deadlines - one that is renewed as it expires is not lost, nor its neighbours', () => {
  const clock = new SteppedClock()
  const deadlines = new Deadlines(clock)
  const other = new Item(clock)
  let times = 0
  const renewed: Pending = {
    deadline: 0,
    expire() {
      deadlines.delete(other, 100)
      if (++times < 3) deadlines.add(renewed, 100)
      deadlines.add(other, 100)
    },
  }
  deadlines.add(renewed, 100)
  deadlines.add(other, 100)
  clock.to(1000)
  assert.equal(times, 3)
  assert.equal(other.expiredAt, 400)
  assert.equal(clock.timers.size, 0)
})

test('deadlines - one that throws as it expires keeps none of the others from expiring', () => {
  const clock = new SteppedClock()
  const deadlines = new Deadlines(clock)
  const broken: Pending = {
    deadline: 0,
    expire() {
      throw new Error('broken')
    },
  }
  const others = [0, 1, 2].map((at) => {
    const item = new Item(clock)
    if (at === 1) deadlines.add(broken, 100)
    deadlines.add(item, 100)
    return item
  })
  assert.throws(() => clock.to(1000), /broken/)
  clock.to(1000)
  const late = new Item(clock)
  deadlines.add(late, 100)
  clock.to(2000)
  assert.deepEqual(
    [...others, late].map(({ expiredAt }) => expiredAt),
    [100, 100, 100, 1100],
  )
  assert.equal(clock.timers.size, 0)
})
