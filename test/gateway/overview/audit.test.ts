// Each change through the gateway is told, with the name of the token.

import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { test } from 'node:test'
import type { AccessToken } from '../../../src/gateway/index.ts'
import { createGateway } from '../../../src/gateway/index.ts'
import { ROUTES } from '../../../src/gateway/routes/index.ts'
import { channelName, type TelemetryEvents } from '../../../src/index.ts'
import { onBothWorlds } from '../../support/gateway.ts'

type Action = TelemetryEvents['gateway:action']

const TOKENS: readonly AccessToken[] = [
  { token: 'secret-of-ann', name: 'ann', scopes: ['admin'] },
  { token: 'secret-of-bob', scopes: ['read', 'submit'] },
]

async function toldWhile(run: () => Promise<void>): Promise<Action[]> {
  const told: Action[] = []
  const listener = (data: unknown) => void told.push(data as Action)
  const name = channelName('gateway:action')
  assert.equal(name, 'soloflight:gateway:action')
  subscribe(name, listener)
  try {
    await run()
  } finally {
    unsubscribe(name, listener)
  }
  return told
}

onBothWorlds('audit - who did what to which job, and what came of it', async (w) => {
  const server = await w.open({ tokens: TOKENS })
  const by = (token: string) => ({ authorization: `Bearer ${token}` })
  const ann = by('secret-of-ann')
  let id = ''
  const told = await toldWhile(async () => {
    const posted = await server.call('POST', '/q/a', { body: '1', headers: by('secret-of-bob') })
    id = (posted.json as { id: string }).id
    await server.call('POST', `/j/a/${id}/cancel`, { headers: by('secret-of-bob') })
    await server.call('POST', `/j/a/${id}/cancel`, { headers: by('wrong') })
    await server.call('POST', `/j/a/${id}/cancel`, { headers: ann })
    await server.call('POST', '/j/a/none/retry', { headers: ann })
    await server.call('POST', '/control/a', { body: '{"status":"stop"}', headers: ann })
    await server.call('POST', '/qb/a', { body: '{"jobs":[1,2,3]}', headers: ann })
    assert.equal(
      (await server.call('POST', '/jobs/a/remove?state=waiting&dry', { headers: ann })).status,
      200,
    )
    await server.call('POST', '/jobs/a/remove?state=waiting&expect=3', { headers: ann })
    await server.call('DELETE', '/q/a', { headers: ann })
    await server.call('GET', '/j/a', { headers: ann })
  })
  const none = { id: undefined, count: undefined }
  assert.deepEqual(told, [
    { who: undefined, action: 'submit', queue: 'a', id, count: undefined, status: 201 },
    { who: undefined, action: 'cancel', queue: 'a', id, count: undefined, status: 403 },
    { who: undefined, action: 'cancel', queue: 'a', id, count: undefined, status: 401 },
    { who: 'ann', action: 'cancel', queue: 'a', id, count: undefined, status: 200 },
    { who: 'ann', action: 'retry', queue: 'a', id: 'none', count: undefined, status: 404 },
    { who: 'ann', action: 'stop', queue: 'a', ...none, status: 200 },
    { who: 'ann', action: 'submit', queue: 'a', id: undefined, count: 3, status: 201 },
    { who: 'ann', action: 'remove', queue: 'a', id: undefined, count: 3, status: 200 },
    { who: 'ann', action: 'erase', queue: 'a', ...none, status: 204 },
  ])
  assert.ok(!JSON.stringify(told).includes('secret'))
})

test('audit - every route that needs the scope admin and changes something has an action', () => {
  const without = ROUTES.filter(
    ({ scope, effect, action }) => scope === 'admin' && effect === 'changes' && action === undefined,
  )
  assert.deepEqual(without, [])
})

test('audit - the name of a token is a short text', () => {
  for (const name of ['', 'x'.repeat(101), 'two\nlines', 1])
    assert.throws(
      () => createGateway({ tokens: [{ token: 'x', scopes: [], name: name as string }] }),
      /`tokens\[0\]\.name` to be 1 to 100 characters/,
    )
})
