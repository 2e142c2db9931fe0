// U2: what serves or waits keeps the process alive, and nothing else.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Services } from '../../src/services/index.ts'
import { Programs } from '../support/program.ts'
import { setup } from '../support/setup.ts'

let programs: Programs
before(async () => {
  programs = await Programs.build()
})
after(() => programs[Symbol.asyncDispose]())

const start = (text: string) =>
  programs.start('ESM', 'ClosedError', `import { Services } from './dist/services/index.js'\n${text}`)

test('U2 a process that serves lives until it closes, and ends by itself', async () => {
  await using t = await setup()
  const program = await start(`
const services = new Services({ redis: ${JSON.stringify(t.redis)} })
const sums = await services.register('sums')
sums.on('add', (a, b) => a + b)
process.once('SIGTERM', () => services.close())
process.once('beforeExit', () => console.log('nothing left'))
console.log('serving')`)
  await program.says('serving')
  await using services = new Services({ redis: t.redis })
  const remote = services.require<{ add(a: number, b: number): number }>('sums')
  await remote.ready()
  assert.equal(await remote.emit('add', 1, 2), 3)
  assert.ok(program.runs)
  program.signal('SIGTERM')
  assert.equal(await program.exits(), 0, program.errors)
  assert.equal(program.output, 'serving\nnothing left\n')
})

test('U2 embedded: serving keeps it alive, waiting too, a Services object and a remote do not', async () => {
  const idle = await start(`
const services = new Services()
services.require('x')
services.on('up', () => {})`)
  assert.equal(await idle.exits(), 0, idle.errors)
  const waits = await start(`
const services = new Services()
services.require('x', { wait: 500 }).emit('y').catch((error) => console.log(error.code))`)
  assert.equal(await waits.exits(), 0, waits.errors)
  assert.equal(waits.output, 'E_NO_SERVICE\n')
  const serves = await start(`
const services = new Services()
const service = await services.register('x')
service.on('y', () => console.log('called'))
await services.require('x').emit('y')
setTimeout(() => services.close(), 500).unref()
process.once('beforeExit', () => console.log('nothing left'))`)
  assert.equal(await serves.exits(), 0, serves.errors)
  assert.equal(serves.output, 'called\nnothing left\n')
})

test('U2 on Redis: a process that has called ends by itself once it has closed', async () => {
  await using t = await setup()
  await using services = new Services({ redis: t.redis })
  ;(await services.register('sums')).on('add', (a, b) => a + b)
  const program = await start(`
const services = new Services({ redis: ${JSON.stringify(t.redis)} })
const remote = services.require('sums')
console.log(await remote.emit('add', 1, 2), await remote.with({ dedupe: true }).emit('add', 3, 4))
for await (const { result } of remote.broadcast('add', 5, 6)) console.log(result)
await services.close()`)
  assert.equal(await program.exits(), 0, program.errors)
  assert.equal(program.output, '3 7\n11\n')
})
