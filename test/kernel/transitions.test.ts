import assert from 'node:assert/strict'
import { test } from 'node:test'
import { assertTransition, type Transitions } from '../../src/kernel/collections.ts'
import { CALL_TRANSITIONS } from '../../src/kernel/redis/call.ts'
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

function assertComplete<State extends string>(
  transitions: Transitions<State>,
  first: State,
  ends: State[],
): void {
  const states = Object.keys(transitions) as State[]
  assert.equal(reachable(transitions, first).size, states.length)
  assert.deepEqual(
    states.filter((state) => transitions[state].length === 0),
    ends,
  )
  for (const state of states) {
    const after = reachable(transitions, state)
    assert.ok(
      ends.some((end) => after.has(end)),
      state,
    )
  }
}

test('transitions - every state of a lease is reached from the first, and each leads to an end', () => {
  assertComplete(LEASE_TRANSITIONS, 'held', ['settled', 'released', 'discarded'])
})

test('transitions - every state of a call is reached from the first, and each leads to an end', () => {
  assertComplete(CALL_TRANSITIONS, 'queued', ['closed'])
})
