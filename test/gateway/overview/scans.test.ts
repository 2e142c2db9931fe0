// Few searches read at once: each may hold megabytes of payloads.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { OverloadedError } from '../../../src/errors.ts'
import { Scans } from '../../../src/gateway/search/scans.ts'

test('scans - four run at once, a hundred wait for their turn, and more are refused', async () => {
  const scans = new Scans()
  const ends: (() => void)[] = []
  let running = 0
  let most = 0
  const scan = async (fails: boolean) => {
    most = Math.max(most, ++running)
    await new Promise<void>((resolve) => ends.push(resolve))
    running--
    if (fails) throw new Error('broken')
  }
  const all = Array.from({ length: 104 }, (_, n) => scans.run(() => scan(n % 2 === 0)))
  await assert.rejects(
    scans.run(() => scan(false)),
    OverloadedError,
  )
  const settled = Promise.allSettled(all)
  let ended = 0
  for (; ended < 104; ended++) {
    while (ends.length === 0) await new Promise(setImmediate)
    ends.shift()?.()
  }
  const failed = (await settled).filter(({ status }) => status === 'rejected')
  assert.deepEqual([most, running, failed.length], [4, 0, 52])
  // The slots of all are free again.
  const again = Array.from({ length: 4 }, () => scans.run(() => scan(false)))
  assert.equal(running, 4)
  for (const end of ends) end()
  await Promise.all(again)
})
