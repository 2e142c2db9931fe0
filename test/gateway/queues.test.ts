import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createGateway } from '../../src/gateway/index.ts'
import { until } from '../support/wait.ts'

test('queues - requests that wait on many queues are refused before they take the room of the others', async () => {
  await using gateway = createGateway()
  const call = async (method: string, path: string, init: RequestInit = {}) => {
    const response = await gateway.fetch(new Request(`http://localhost${path}`, { method, ...init }))
    return { status: response.status, text: await response.text(), headers: response.headers }
  }
  const leaving = new AbortController()
  const { signal } = leaving
  const answered: number[] = []
  const waits = Array.from({ length: 1_000 }, async (_, n) => {
    const { status } = await call('GET', `/q/waited-${n}?wait=60`, { signal })
    answered.push(status)
    return status
  })
  await until(() => answered.length === 100, { what: '100 of them to be refused' })
  assert.deepEqual([...new Set(answered)], [503])
  // All ways to wait have the same bound, but a queue that is waited on already takes more.
  const refused = await call('POST', '/q/other?wait=60', { body: '1' })
  assert.deepEqual([refused.status, refused.headers.get('retry-after')], [503, '1'])
  assert.match(refused.text, /"overloaded"/)
  assert.equal((await call('GET', '/q/waited-0?wait=10ms')).status, 404)
  // What does not wait has room: on more queues than are left, one after the other.
  for (let n = 0; n < 300; n++) {
    const queue = `/q/short-${n}`
    assert.equal((await call('POST', queue, { body: '1' })).status, 201)
    const taken = await call('GET', `${queue}?lease=30`)
    const headers = { 'x-lease': taken.headers.get('x-lease') ?? '' }
    assert.equal((await call('PATCH', queue, { headers })).status, 200)
    assert.equal((await call('PUT', queue, { headers, body: '2' })).status, 204)
  }
  leaving.abort()
  assert.equal((await Promise.all(waits)).length, 1_000)
  assert.equal((await call('GET', '/q/other?wait=10ms')).status, 404)
})
