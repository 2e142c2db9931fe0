// Memoized handlers in several processes on one Redis, with concurrent clients at all of them.

import assert from 'node:assert/strict'
import { Agent, request } from 'node:http'
import { text } from 'node:stream/consumers'
import { describe, test } from 'node:test'
import type { Kind, MemoizeHandlers } from '../support/memoize-child.ts'
import { LOCALHOST } from '../support/ports.ts'
import { Child } from '../support/process.ts'
import { type Setup, setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const FILE = new URL('../support/memoize-child.ts', import.meta.url)

interface Run {
  url: string
  pid: number
}

interface Got {
  status: number
  text: string
  cacheStatus: string
}

/** Processes with one kind of server, and the runs of their handlers. */
class Fleet implements AsyncDisposable {
  readonly children: readonly Child<MemoizeHandlers>[]
  readonly runs: Run[] = []
  readonly #ports: readonly number[]
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 256 })

  private constructor(children: readonly Child<MemoizeHandlers>[], ports: readonly number[]) {
    this.children = children
    this.#ports = ports
    for (const child of children) child.on('run', (run) => this.runs.push(run as Run))
  }

  static async start(t: Setup, kinds: readonly Kind[], slowness: number, lease = 10_000): Promise<Fleet> {
    const children = await Promise.all(kinds.map(() => Child.fork<MemoizeHandlers>(FILE)))
    const locker = { redis: t.redis, lease }
    const ports = await Promise.all(
      children.map((child, i) => child.call('open', kinds[i] as Kind, { slowness, locker })),
    )
    return new Fleet(children, ports)
  }

  /** Sends a request to one of the processes, always with the same Host. */
  ask(index: number, path: string, method = 'GET'): Promise<Got> {
    return new Promise((resolve, reject) => {
      const headers = { host: 'fleet.example' }
      const asked = request({
        host: LOCALHOST,
        port: this.#ports[index],
        path,
        method,
        headers,
        agent: this.#agent,
      })
      asked.on('error', reject)
      asked.on('response', async (response) => {
        const { statusCode: status = 0, headers } = response
        resolve({ status, text: await text(response), cacheStatus: String(headers['cache-status']) })
      })
      asked.end()
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#agent.destroy()
    await Promise.all(this.children.map((child) => child.kill()))
  }
}

describe('memoize processes', () => {
  for (const kinds of [
    ['node', 'node', 'node', 'node'],
    ['express', 'express', 'express', 'express'],
    ['fetch', 'fetch', 'fetch', 'fetch'],
    ['node', 'express', 'fetch', 'node'],
  ] as const) {
    const name = [...new Set(kinds)].join(', ')
    test(`memoize processes - 500 requests for one slow page run the handler once: ${name}`, async () => {
      await using t = await setup()
      await using fleet = await Fleet.start(t, kinds, 300)
      const crowd = await Promise.all(Array.from({ length: 500 }, (_, i) => fleet.ask(i % 4, '/slow')))
      for (const { status, text } of crowd) assert.deepEqual([status, text], [200, '/slow version 1'])
      assert.equal(fleet.runs.length, 1)
      // Every process has it now: the handler does not run again.
      for (let i = 0; i < 4; i++) assert.match((await fleet.ask(i, '/slow')).cacheStatus, /^soloflight; hit/)
      assert.equal(fleet.runs.length, 1)
    })
  }

  test('memoize processes - the process that renders a page is killed: another renders it, no client keeps waiting', async () => {
    await using t = await setup()
    await using fleet = await Fleet.start(t, ['node', 'node', 'express', 'fetch'], 700, 1_000)
    const crowd = Array.from({ length: 40 }, (_, i) => fleet.ask(i % 4, '/slow').catch(() => undefined))
    await until(() => fleet.runs.length === 1, { what: 'the first run' })
    const first = fleet.children.findIndex(({ pid }) => pid === fleet.runs[0]?.pid)
    await fleet.children[first]?.kill()
    const got = await Promise.all(crowd)
    for (const [i, answer] of got.entries()) {
      // The clients of the killed process have lost their connections.
      if (i % 4 === first) assert.equal(answer, undefined)
      else assert.deepEqual([answer?.status, answer?.text], [200, '/slow version 1'])
    }
    assert.equal(fleet.runs.length, 2)
    assert.notEqual(fleet.runs[1]?.pid, fleet.runs[0]?.pid)
  })

  test('memoize processes - after an unsafe request in one process, no process serves the old page', async () => {
    await using t = await setup()
    await using fleet = await Fleet.start(t, ['node', 'express', 'fetch', 'node'], 0)
    for (let i = 0; i < 4; i++) assert.equal((await fleet.ask(i, '/page')).text, '/page version 1')
    assert.equal(fleet.runs.length, 1)
    for (const child of fleet.children) await child.call('setVersion', 2)
    assert.equal((await fleet.ask(0, '/page', 'POST')).text, 'changed')
    for (const child of fleet.children) await child.call('setVersion', 2)
    assert.equal((await fleet.ask(0, '/page')).text, '/page version 2')
    for (let i = 0; i < 4; i++)
      await until(async () => (await fleet.ask(i, '/page')).text === '/page version 2', {
        what: `process ${i}`,
      })
    assert.equal(fleet.runs.length, 2)
  })
})
