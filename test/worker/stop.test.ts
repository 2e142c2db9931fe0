// A worker that stops takes no more jobs, finishes those that run, and gives back those that do not end in time.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { HttpWorker, type JobContext } from '../../src/worker/index.ts'
import { Cli } from '../support/cli.ts'
import { compiled } from '../support/compiled.ts'
import { type GatewayServer, onBothWorlds } from '../support/gateway.ts'
import { HttpRelay } from '../support/http-relay.ts'
import { setup } from '../support/setup.ts'
import { soon, took, until } from '../support/wait.ts'

const CHILD = fileURLToPath(new URL('../support/http-worker-child.ts', import.meta.url))

async function post({ call }: GatewayServer, body = '1'): Promise<string> {
  return ((await call('POST', '/q/jobs', { body })).json as { id: string }).id
}

async function statusOf({ call }: GatewayServer, id: string): Promise<Record<string, unknown>> {
  return (await call('GET', `/j/jobs/${id}`)).json as Record<string, unknown>
}

/** A work that goes on until it is told to end, whatever its signal says. */
class Work {
  readonly contexts: JobContext[] = []
  #end: () => void = () => {}
  readonly #ended = new Promise<void>((resolve) => {
    this.#end = resolve
  })

  readonly work = async (_: unknown, context: JobContext): Promise<string> => {
    this.contexts.push(context)
    await this.#ended
    return 'done'
  }

  end(): void {
    this.#end()
  }
}

onBothWorlds('http worker stop - waits for the running job, and takes no more', async (world) => {
  const gateway = await world.open()
  const work = new Work()
  const worker = new HttpWorker({ url: gateway.url, queues: 'jobs', work: work.work })
  await worker.start()
  const [first, second] = [await post(gateway), await post(gateway)]
  await until(() => work.contexts.length === 1, { what: 'the work' })
  const stopping = worker.stop()
  assert.equal(await soon(stopping, 100), 'pending')
  work.end()
  await stopping
  assert.equal((await statusOf(gateway, first))['result'], 'done')
  assert.equal((await statusOf(gateway, second))['state'], 'waiting')
  assert.equal(work.contexts[0]?.signal.aborted, false)
  assert.equal(work.contexts.length, 1)
  await worker.stop()
  await assert.rejects(worker.start(), { code: 'E_CLOSED' })
})

onBothWorlds('http worker stop - after its grace, the jobs go back at once, uncounted', async (world) => {
  const gateway = await world.open()
  const work = new Work()
  const worker = new HttpWorker({ url: gateway.url, queues: 'jobs', concurrency: 3, work: work.work })
  await worker.start()
  const ids = [await post(gateway), await post(gateway), await post(gateway)]
  await until(() => work.contexts.length === 3, { what: 'the works' })
  // The works do not listen to their signals: they are not waited for.
  const stopping = worker.stop({ grace: 60_000 })
  await worker.stop({ grace: 0 })
  await stopping
  for (const { signal } of work.contexts) assert.equal((signal.reason as { code: string }).code, 'E_CLOSED')
  for (const id of ids) {
    const { state, retries, stalls } = await statusOf(gateway, id)
    assert.deepEqual([state, retries, stalls], ['waiting', 0, 0])
  }
  assert.equal(worker.stats().returned, 3)
  const again = await gateway.call('GET', '/q/jobs?lease=30')
  assert.equal(again.headers.get('x-job-attempt'), '1')
  work.end()
})

onBothWorlds(
  'http worker stop - an idle worker stops without an answer, and takes nothing with it',
  async (world) => {
    const gateway = await world.open()
    await using relay = await HttpRelay.start(gateway.url)
    const worker = new HttpWorker({ url: relay.url, queues: 'jobs', interval: 200, work: () => 1 })
    await worker.start()
    await until(() => relay.open.some((open) => open.startsWith('GET /q/jobs')), { what: 'the long poll' })
    await worker.stop()
    await until(() => relay.open.length === 0, { what: 'no request' })
    const id = await post(gateway)
    assert.equal((await statusOf(gateway, id))['state'], 'waiting')
  },
)

onBothWorlds('http worker stop - a job that arrives while it stops goes back', async (world) => {
  const gateway = await world.open()
  await using relay = await HttpRelay.start(gateway.url)
  let runs = 0
  const worker = new HttpWorker({ url: relay.url, queues: 'jobs', interval: 20_000, work: () => runs++ })
  await worker.start()
  await until(() => relay.open.some((open) => open.startsWith('GET /q/jobs')), { what: 'the long poll' })
  const stopping = worker.stop()
  const id = await post(gateway)
  await stopping
  assert.equal(runs, 0)
  const { state, retries, stalls } = await statusOf(gateway, id)
  assert.deepEqual([state, retries, stalls], ['waiting', 0, 0])
  assert.equal(worker.stats().returned, 1)
})

onBothWorlds(
  'http worker stop - a job that arrives while it stops, and cannot be given back, counts as lost',
  async (world) => {
    const gateway = await world.open()
    await using relay = await HttpRelay.start(gateway.url)
    relay.fate = ({ method }) => (method === 'PUT' ? { status: 409 } : 'pass')
    const lines: string[] = []
    const log = (...said: unknown[]) => lines.push(...said.map(String))
    const worker = new HttpWorker({
      ...{ url: relay.url, queues: 'jobs', interval: 20_000, work: () => 1 },
      logger: { error: log, warn: log, info: log, debug: log },
      level: 'warn',
    })
    await worker.start()
    await until(() => relay.open.some((open) => open.startsWith('GET /q/jobs')), { what: 'the long poll' })
    const stopping = worker.stop()
    await post(gateway)
    await stopping
    const { returned, lost } = worker.stats()
    assert.deepEqual([returned, lost], [0, 1])
    assert.ok(lines.includes('soloflight: a job was lost'), lines.join())
  },
)

onBothWorlds('http worker stop - a job goes back by the next gateway if one hangs', async (world) => {
  const [one, other] = [await world.open(), await world.open()]
  await using relay = await HttpRelay.start(one.url)
  const work = new Work()
  const options = { url: [relay.url, other.url], queues: 'jobs', timeout: 3_000 }
  const worker = new HttpWorker({ ...options, work: work.work })
  await worker.start()
  await post(one)
  await until(() => work.contexts.length === 1, { what: 'the work' })
  relay.fate = ({ method }) => (method === 'PUT' ? 'hang' : 'pass')
  await worker.stop({ grace: 0 })
  const { returned, lost } = worker.stats()
  assert.deepEqual([returned, lost], [1, 0])
  assert.equal((await other.call('GET', '/q/jobs')).status, 200)
})

onBothWorlds('http worker stop - ends in time although no gateway answers', async (world) => {
  const gateway = await world.open()
  await using relay = await HttpRelay.start(gateway.url)
  const work = new Work()
  const worker = new HttpWorker({ url: relay.url, queues: 'jobs', timeout: 500, work: work.work })
  await worker.start()
  await post(gateway)
  await until(() => work.contexts.length === 1, { what: 'the work' })
  relay.fate = () => 'hang'
  const ms = await took(() => worker.stop({ grace: 0 }))
  assert.ok(ms < 5_000, `${ms} ms`)
  assert.equal(worker.stats().lost, 1)
})

onBothWorlds(
  'http worker stop - ends although fail, or a work whose lease was lost, goes on for ever',
  async (w) => {
    const gateway = await w.open()
    await using relay = await HttpRelay.start(gateway.url)
    let [failing, lost] = [0, 0]
    const never = new Promise<never>(() => {})
    const worker = new HttpWorker<string, string>({
      ...{ url: relay.url, queues: 'jobs', concurrency: 2, lease: 1_000 },
      work(job, { signal }) {
        if (job === 'fail') throw new Error('no')
        signal.addEventListener('abort', () => lost++)
        return never
      },
      fail() {
        failing++
        return never
      },
    })
    await worker.start()
    await post(gateway, '"fail"')
    await until(() => failing === 1, { what: 'fail' })
    relay.fate = ({ method }) => (method === 'PATCH' ? 'drop' : 'pass')
    await post(gateway, '"hang"')
    await until(() => lost === 1, { what: 'the loss', timeout: 20_000 })
    assert.equal(await soon(worker.stop({ grace: 0 }), 10_000), undefined)
  },
)

test('http worker stop - before it was started, or twice', async () => {
  const worker = new HttpWorker({ url: 'http://127.0.0.1:9', queues: 'jobs', work: () => 1 })
  await Promise.all([worker.stop(), worker.stop()])
  await assert.rejects(worker.run(), { code: 'E_CLOSED' })
  await assert.rejects(worker.stop({ grace: -1 }), TypeError)
})

test('http worker stop - SIGTERM: a process finishes its jobs and ends by itself', async () => {
  await using t = await setup({ port: 'free' })
  await using gateway = await Cli.serve(['--redis', t.url])
  await using child = Cli.run(process.execPath, [await compiled(CHILD), gateway.url])
  const posted = gateway.post(1_000)
  await child.says('begins 1000')
  child.signal('SIGTERM')
  assert.equal(await child.exits(), 0)
  assert.deepEqual(await posted, { status: 200, text: `"1000 by ${child.pid}"`, connection: 'keep-alive' })
  assert.match(child.output, /has stopped: .*"completed":1,"failed":0,"dead":0,"returned":0,"lost":0/)
  assert.equal(child.errors, '')
})

for (const [what, grace, signals] of [
  ['whose grace is over', '200', 1],
  ['that gets a second SIGTERM', '60000', 2],
] as const) {
  test(`http worker stop - SIGTERM: a process ${what} gives its jobs back, and another has them at once`, async () => {
    await using t = await setup({ port: 'free' })
    await using gateway = await Cli.serve(['--redis', t.url])
    const file = await compiled(CHILD)
    await using first = Cli.run(process.execPath, [file, gateway.url, grace])
    const posted = gateway.post(3_000)
    await first.says('begins 3000')
    first.signal('SIGTERM')
    await first.says('the worker stops')
    if (signals === 2) first.signal('SIGTERM')
    assert.equal(await first.exits(), 0)
    assert.match(first.output, /"completed":0,"failed":0,"dead":0,"returned":1,"lost":0/)
    await using second = Cli.run(process.execPath, [file, gateway.url])
    assert.equal((await posted).text, `"3000 by ${second.pid}"`)
  })
}

test('http worker stop - SIGKILL: its job is given to another when the lease ends', async () => {
  await using t = await setup({ port: 'free' })
  await using gateway = await Cli.serve(['--redis', t.url])
  const script = (name: string) => `
    import { HttpWorker } from ${JSON.stringify(new URL('../../src/worker/index.ts', import.meta.url).href)}
    await new HttpWorker({ url: ${JSON.stringify(gateway.url)}, queues: 'jobs', lease: 1000, async work() {
      console.log('begins')
      if (${name === 'first'}) await new Promise(() => {})
      return '${name}'
    } }).run()`
  const run = (name: string) =>
    Cli.run(process.execPath, [
      '--import',
      import.meta.resolve('tsx'),
      '--input-type=module',
      '-e',
      script(name),
    ])
  await using first = run('first')
  const posted = gateway.post(1)
  await first.says('begins')
  await first.kill()
  await using second = run('second')
  assert.equal((await posted).text, '"second"')
  await second.says('begins')
})
