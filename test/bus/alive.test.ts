// U2: a subscription keeps the process alive until it ends; a topic and a persisted object do not.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Programs } from '../support/program.ts'
import { setup } from '../support/setup.ts'

let programs: Programs
before(async () => {
  programs = await Programs.build()
})
after(() => programs[Symbol.asyncDispose]())

const start = (text: string) =>
  programs.start('ESM', 'ClosedError', `import { Bus } from './dist/bus/index.js'\n${text}`)

const subscribes = (redis: object | undefined) => `
const bus = new Bus({ redis: ${JSON.stringify(redis)} })
const topic = bus.pubsub('t')
topic.on('message', (message) => console.log(message))
process.once('SIGTERM', () => topic.unsubscribe().then(() => bus.disconnect()))
await topic.subscribe()
await topic.publish('heard')
process.once('beforeExit', () => console.log('nothing left'))`

test('U2 a process that subscribes lives until it unsubscribes, and ends by itself', async () => {
  await using t = await setup()
  for (const redis of [undefined, t.redis]) {
    const program = await start(subscribes(redis))
    await program.says('heard')
    assert.ok(program.runs)
    program.signal('SIGTERM')
    assert.equal(await program.exits(), 0, program.errors)
    assert.equal(program.output, 'heard\nnothing left\n')
  }
})

test('U2 embedded: topics that are published to, and persisted objects, do not keep it alive', async () => {
  const program = await start(`
const bus = new Bus()
await bus.pubsub('t').publish(1)
const object = bus.persistify('o', { n: 1 }, ['n'])
object.persist(60_000)
console.log(await object.save())`)
  assert.equal(await program.exits(), 0, program.errors)
  assert.equal(program.output, 'true\n')
})
