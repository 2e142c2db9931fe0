// The chunks of a streamed reply, as they are sent.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import type { Clock } from '../../src/kernel/time.ts'
import { WINDOW } from '../../src/services/messages.ts'
import { ChunkSender } from '../../src/services/serving/chunk-sender.ts'

test('chunk sender - one timer at most, and none when it is over', async () => {
  let [timers, most] = [0, 0]
  const after: Clock['after'] = () => {
    most = Math.max(most, ++timers)
    let isCancelled = false
    const cancel = () => {
      if (!isCancelled) timers--
      isCancelled = true
    }
    return { cancel } as ReturnType<Clock['after']>
  }
  const clock: Clock = { now: () => 0, after }
  const sender = new ChunkSender({
    ...{ id: 'id', process: 'process', clock },
    encode: () => Buffer.alloc(0),
    send() {},
    onCallerLost() {},
  })
  async function* values() {
    for (let n = 0; n < 5 * WINDOW; n++) yield n
  }
  const sent = sender.sendAll(values())
  for (let taken = 0; taken < 5 * WINDOW; taken += WINDOW / 2) {
    for (let n = 0; n < 10; n++) await turn()
    sender.onCredit(taken)
  }
  assert.equal(await sent, 5 * WINDOW)
  assert.deepEqual([timers, most], [0, 1])
})
