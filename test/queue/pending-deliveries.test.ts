// What a worker of takers knows of its slots and deliveries, by the order of replies and deliveries.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PendingDeliveries } from '../../src/queue/taking/pending-deliveries.ts'
import { ManualClock } from '../support/manual-clock.ts'

const LOST_AFTER = 100

function pending() {
  const clock = new ManualClock()
  const world = { clock, lost: 0, deliveries: new PendingDeliveries(clock, LOST_AFTER, () => world.lost++) }
  /** An announcement that is accepted at once. Returns what it says of the slots before. */
  const announce = (slots: number, since: number, assigned: number) => {
    const former = world.deliveries.onSent()
    world.deliveries.onAnnounced(slots, { since, assigned, more: false })
    return former
  }
  /** The slots that the next announcement would tell of. It fails. */
  const slots = () => {
    const former = world.deliveries.onSent()
    world.deliveries.onFailed()
    return former
  }
  return Object.assign(world, { announce, slots })
}

test('pending deliveries - one that a reply tells of is on its way until it arrives', () => {
  const { deliveries, announce, slots } = pending()
  assert.equal(announce(5, 0, 2), undefined)
  assert.equal(deliveries.count, 2)
  deliveries.onArrived()
  assert.equal(deliveries.count, 1)
  deliveries.onArrived()
  assert.deepEqual([deliveries.count, slots()], [0, 3])
})

test('pending deliveries - those since the last announcement are told by the next', () => {
  const { deliveries, announce, slots } = pending()
  announce(5, 0, 0)
  assert.equal(announce(6, 2, 1), 5)
  assert.equal(deliveries.count, 3)
  assert.equal(slots(), 3)
})

test('pending deliveries - one that arrives before the reply that tells of it is not on its way', () => {
  const { deliveries, slots } = pending()
  deliveries.onSent()
  deliveries.onArrived()
  deliveries.onArrived()
  deliveries.onAnnounced(5, { since: 0, assigned: 3, more: false })
  assert.deepEqual([deliveries.count, slots()], [1, 2])
})

test('pending deliveries - one that arrives early, and that no reply tells of, has used a slot', () => {
  const { deliveries, slots } = pending()
  deliveries.onSent()
  deliveries.onArrived()
  deliveries.onAnnounced(5, { since: 0, assigned: 0, more: false })
  assert.deepEqual([deliveries.count, slots()], [0, 4])
})

test('pending deliveries - one that arrives between announcements has used a slot', () => {
  const { deliveries, announce, slots } = pending()
  announce(2, 0, 0)
  deliveries.onArrived()
  assert.deepEqual([deliveries.count, slots()], [0, 1])
})

test('pending deliveries - after an announcement that failed, slots and deliveries are not known', () => {
  const { deliveries, announce, slots } = pending()
  announce(5, 0, 2)
  deliveries.onSent()
  deliveries.onFailed()
  assert.equal(deliveries.count, 2)
  // What has arrived since the failure may be what was told before, or not.
  assert.equal(announce(5, 0, 1), undefined)
  assert.deepEqual([deliveries.count, slots()], [1, 4])
})

test('pending deliveries - of announcements that overlap, none tells what the other left', () => {
  const { deliveries, announce } = pending()
  announce(5, 0, 0)
  assert.equal(deliveries.onSent(), 5)
  // The slots that the first of them leaves are not known yet.
  assert.equal(deliveries.onSent(), undefined)
  deliveries.onAnnounced(2, { since: 0, assigned: 1, more: false })
  assert.equal(deliveries.count, 1)
  deliveries.onAnnounced(3, { since: 0, assigned: 1, more: false })
  assert.equal(deliveries.count, 2)
  assert.equal(announce(4, 0, 0), undefined)
  assert.equal(announce(4, 0, 0), 4)
  assert.equal(deliveries.count, 2)
})

test('pending deliveries - one that arrives early between the replies to announcements that overlap counts once', () => {
  const { deliveries } = pending()
  deliveries.onSent()
  deliveries.onSent()
  deliveries.onArrived()
  deliveries.onArrived()
  deliveries.onAnnounced(2, { since: 0, assigned: 1, more: false })
  assert.equal(deliveries.count, 0)
  deliveries.onAnnounced(3, { since: 0, assigned: 2, more: false })
  assert.equal(deliveries.count, 1)
})

test('pending deliveries - one that takes too long is lost, and told once', () => {
  const world = pending()
  world.announce(3, 0, 2)
  world.clock.advance(LOST_AFTER / 2)
  // The later announcement tells of another one: all of them are waited for.
  world.announce(3, 0, 1)
  world.clock.advance(LOST_AFTER / 2)
  assert.deepEqual([world.deliveries.count, world.lost], [3, 0])
  world.clock.advance(LOST_AFTER / 2)
  assert.deepEqual([world.deliveries.count, world.lost], [0, 1])
  world.clock.advance(10 * LOST_AFTER)
  assert.equal(world.lost, 1)
  world.announce(1, 0, 1)
  world.deliveries.stop()
  assert.equal(world.clock.pending, 0)
})

test('pending deliveries - those on their way to a subscription that was interrupted are lost at once', () => {
  const { deliveries, announce, slots } = pending()
  announce(5, 0, 2)
  deliveries.reset()
  assert.deepEqual([deliveries.count, slots()], [0, undefined])
})
