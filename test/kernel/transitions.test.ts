import assert from 'node:assert/strict'
import { test } from 'node:test'
import { assertTransition, type Transitions } from '../../src/kernel/transitions.ts'
import { LEASE_TRANSITIONS } from '../../src/locker/processor/lease-state.ts'

test('transitions - a legal one passes, an illegal one is an internal error', () => {
  const door: Transitions<'open' | 'closed'> = { open: ['closed'], closed: [] }
  assertTransition('door', door, 'open', 'closed')
  assert.throws(() => assertTransition('door', door, 'closed', 'open'), {
    name: 'Error',
    message: 'Illegal transition of a door: closed to open',
  })
})

/** The states that can be reached from one of them. */
function reachable<State extends string>(transitions: Transitions<State>, from: State): Set<State> {
  const found = new Set([from])
  for (const state of found) for (const next of transitions[state]) found.add(next)
  return found
}

test('transitions - every state of a lease is reached from the first, and each leads to an end', () => {
  const states = Object.keys(LEASE_TRANSITIONS) as (keyof typeof LEASE_TRANSITIONS)[]
  assert.equal(reachable(LEASE_TRANSITIONS, 'held').size, states.length)
  const ends = states.filter((state) => LEASE_TRANSITIONS[state].length === 0)
  assert.deepEqual(ends, ['settled', 'released', 'discarded'])
  for (const state of states) {
    const after = reachable(LEASE_TRANSITIONS, state)
    assert.ok(
      ends.some((end) => after.has(end)),
      state,
    )
  }
})
