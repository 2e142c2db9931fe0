// What must not reach from one Services object to another, and what somebody else writes.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Services } from '../../src/services/index.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

test('list - only the processes of its own prefix', async () => {
  await using t = await setup()
  await using one = new Services({ redis: t.redis, prefix: 'one' })
  await using other = new Services({ redis: t.redis, prefix: 'other' })
  await one.register('here')
  assert.equal((await one.list()).length, 1)
  assert.deepEqual(await other.list(), [])
  assert.deepEqual(await other.list('here'), [])
})

test('dedupe - results have the codec of the Services object', async () => {
  const codec = {
    encode: (value: unknown) => Buffer.from(`coded ${JSON.stringify(value)}`),
    decode: (bytes: Buffer) => JSON.parse(bytes.toString().slice('coded '.length)) as unknown,
  }
  await using services = new Services({ codec: { ...codec, encode: (value) => codec.encode(plain(value)) } })
  const reports = await services.register('reports')
  // The default codec refuses a Map.
  reports.on('render', () => new Map([['pages', 3]]))
  const shared = services.require('reports').with({ dedupe: true }).emit('render')
  assert.deepEqual(await shared, [['pages', 3]])
})

function plain(value: unknown): unknown {
  return value instanceof Map ? [...value] : value
}

test('register - a record that somebody has spoilt does not hinder other services of the process', async () => {
  await using t = await setup()
  await using services = new Services({ redis: t.redis, lease: 400 })
  const good = await services.register('good')
  good.on('add', (a: number, b: number) => a + b)
  await services.register('bad')
  const [key = ''] = ((await t.server.call('KEYS', '*{bad}P')) as unknown[]).map(String)
  await t.server.call('SET', key, 'x')
  // Longer than a lease.
  await sleep(1_000)
  assert.equal(await services.require('good').emit('add', 1, 2), 3)
  await t.server.call('DEL', key)
  await until(
    async () => (await services.list('bad')).some(({ services: [bad] }) => (bad?.leaseLeft ?? 0) > 0),
    {
      what: 'the lease of the other',
    },
  )
  for (const name of ((await t.server.call('KEYS', '*')) as unknown[]).map(String))
    assert.notEqual(Number(await t.server.call('PTTL', name)), -1, `U4 ${name}`)
})

test('ready - does not resolve for a process whose lease is over', async () => {
  await using t = await setup()
  await using caller = new Services({ redis: t.redis })
  const dead = new Services({ redis: t.redis, lease: 300 })
  await dead.register('gone')
  await caller.require('gone').ready()
  const [key] = ((await t.server.call('KEYS', '*}L')) as unknown[]).map(String)
  // As if it had stood still since.
  const address = String(((await t.server.call('ZRANGE', key ?? '', 0, -1)) as unknown[])[0])
  await dead.close()
  await t.server.call('ZADD', key ?? '', 1, address)
  await t.server.call('PEXPIRE', key ?? '', 60_000)
  await assert.rejects(caller.require('gone').with({ within: 300 }).ready(), { code: 'E_TIMEOUT' })
})

test('V4 mark - a forged one that is beyond doubt too high changes no load', async () => {
  await using t = await setup()
  await using services = new Services({ redis: t.redis })
  const sums = await services.register('sums')
  sums.on('add', (a: number, b: number) => a + b)
  const remote = services.require('sums')
  assert.equal(await remote.emit('add', 1, 2), 3)
  const inbox = `soloflight:1:inbox:${services.id.slice(0, 22)}`
  await t.server.call('PUBLISH', inbox, `1${services.id.slice(22)}s 9999999999999999 sums 0\n`)
  await until(async () => (await remote.emit('add', 2, 2)) === 4, { what: 'a call after the mark' })
  assert.equal(await remote.with({ timeout: 2_000 }).emit('add', 3, 2), 5)
})
