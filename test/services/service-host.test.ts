// What a process says again when Redis did not take it.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { jsonCodec } from '../../src/kernel/codec/codec.ts'
import { newId } from '../../src/kernel/keys.ts'
import { AsyncContext, Deadlines, systemClock } from '../../src/kernel/time.ts'
import { resolveServicesOptions } from '../../src/services/options.ts'
import { CallHistory } from '../../src/services/serving/call-history.ts'
import { ServiceHost } from '../../src/services/serving/service-host.ts'
import type { Addressed, ServicesStore } from '../../src/services/store/store.ts'

test('service host - replies are sent again one by one: together they might be too large for a subscription', async () => {
  const reports: (readonly Addressed[])[] = []
  let isAway = true
  const store = {
    address: newId() + newId(),
    report: async (_service, _load, replies) => {
      if (isAway) throw new Error('away')
      reports.push(replies)
    },
  } as Partial<ServicesStore> as ServicesStore
  const host = new ServiceHost(
    'echo',
    { capacity: Number.POSITIVE_INFINITY, backlog: 0, version: '' },
    {
      ...{ store, clock: systemClock, options: resolveServicesOptions({}), storeTimeout: 1_000 },
      deadlines: new Deadlines(systemClock),
      history: new CallHistory(),
      receivedBefore: 0,
      accepts: () => undefined,
    },
  )
  host.addHandler('back', { handler: (value: unknown) => value, context: new AsyncContext() })
  const from = newId() + newId()
  for (let number = 1; number <= 30; number++) {
    const args = jsonCodec.encode([number]) as Buffer
    const left = Number.POSITIVE_INFINITY
    host.onCall({
      ...{ number, id: newId(), from, left, attempt: 1, turn: 1, mode: 'reply', service: 'echo' },
      ...{ event: 'back', trace: undefined, args },
    })
  }
  await host.idle()
  await host.reported()
  assert.equal(host.hasSentAll, false)
  isAway = false
  host.resend()
  await host.reported()
  assert.deepEqual(
    reports.map(([reply, ...more]) => [jsonCodec.decode(reply?.message.body as Buffer), more.length]),
    Array.from({ length: 30 }, (_, index) => [index + 1, 0]),
  )
  assert.equal(host.hasSentAll, true)
})
