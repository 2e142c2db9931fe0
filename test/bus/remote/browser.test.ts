// The client of a bus in browsers: it imports nothing of Node and nothing of Redis, and works with a global WebSocket alone.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'esbuild'
import { WebSocket } from 'ws'
import type * as remote from '../../../src/bus/remote/index.ts'
import { createGateway } from '../../../src/gateway/index.ts'
import { serve } from '../../support/gateway.ts'
import { temporaryFolder } from '../../support/lifeline.ts'
import { until } from '../../support/wait.ts'

const ENTRY = fileURLToPath(new URL('../../../src/bus/remote/index.ts', import.meta.url))

test('remote - bundled for browsers, it has our files alone, and works', async () => {
  const outfile = join(await temporaryFolder(), 'remote.mjs')
  const { metafile } = await build({
    ...{ entryPoints: [ENTRY], outfile, bundle: true, minify: true, metafile: true },
    ...{ platform: 'browser', format: 'esm', target: 'es2023' },
  })
  const inputs = Object.entries(metafile.inputs)
  // What it shares with the bus on Redis imports nothing else.
  const isAllowed =
    /src\/(bus\/(remote|remote\/queue)\/[\w-]+|bus\/((channel|pubsub|queue)\/options|queue\/(queue-iterator|lost-messages)|limits|persisted\/persisted-methods)|kernel\/(collections|names|options)|errors|secrets)\.ts$/
  for (const [path, { imports }] of inputs) {
    assert.match(path, isAllowed)
    for (const { external, path: imported } of imports) assert.ok(!external, `${path} imports ${imported}`)
  }
  const [{ bytes } = { bytes: 0 }] = Object.values(metafile.outputs)
  assert.ok(bytes < 32 * 1024, `${bytes} bytes`)
  const server = await serve(createGateway({ tokens: [{ token: 'page', scopes: ['read', 'submit'] }] }))
  const given = globalThis as { WebSocket?: unknown }
  const before = given.WebSocket
  given.WebSocket = WebSocket
  try {
    const { RemoteBus } = (await import(pathToFileURL(outfile).href)) as typeof remote
    const bus = new RemoteBus(`ws://127.0.0.1:${server.port}/ws`, { token: 'page' })
    const topic = bus.pubsub<number>('topic')
    const received: number[] = []
    topic.on('message', (message) => received.push(message))
    await topic.subscribe()
    await topic.publish(7)
    await until(() => received.length === 1, { what: 'the message' })
    const error = await bus
      .queue('q')
      .flush()
      .catch((error: Error) => error)
    assert.deepEqual([(error as Error).name, received], ['SoloflightError', [7]])
    await bus.disconnect()
  } finally {
    given.WebSocket = before
    await server.close()
  }
})
