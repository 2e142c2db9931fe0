// What a process remembers of the calls that it has received.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CallHistory } from '../../src/services/serving/call-history.ts'
import type { IncomingCall } from '../../src/services/serving/incoming-call.ts'

test('call history - a long call is known for as long as its reply is kept', () => {
  const history = new CallHistory()
  const call = { id: 'long', over: false, replyBytes: 1, dropReply() {} }
  const long = call as unknown as IncomingCall
  history.add(long)
  for (let tick = 0; tick < 700; tick++) history.advance()
  call.over = true
  history.keepReply(long)
  for (let tick = 0; tick < 14; tick++) history.advance()
  assert.equal(history.get('long'), long)
  history.advance()
  assert.equal(history.get('long'), undefined)
})
