import assert from 'node:assert/strict'
import type { Overview, QueueView } from '../../../src/gateway/overview/overview.ts'
import type { GatewayServer } from '../../support/gateway.ts'
import { until } from '../../support/wait.ts'

export async function overviewOf(server: GatewayServer): Promise<Overview> {
  const { status, json, text } = await server.call('GET', '/overview')
  assert.equal(status, 200, text)
  return json as Overview
}

/** The overview, when it has what is asked for. */
export async function overviewWhen(
  server: GatewayServer,
  has: (overview: Overview) => boolean,
  { timeout = 10_000 }: { timeout?: number } = {},
): Promise<Overview> {
  let overview: Overview | undefined
  const found = async () => {
    overview = await overviewOf(server)
    return has(overview)
  }
  await until(found, { what: 'the overview', timeout, every: 50 }).catch((error) => {
    assert.fail(`${error}: ${JSON.stringify(overview, undefined, 1)}`)
  })
  return overview as Overview
}

/** The JSON of a route, when it has what is asked for. */
export async function answerWhen<T>(
  server: GatewayServer,
  path: string,
  has: (json: T) => boolean,
): Promise<T> {
  let answer: T | undefined
  const found = async () => {
    answer = (await server.call('GET', path)).json as T
    return has(answer)
  }
  await until(found, { what: path, timeout: 10_000, every: 50 }).catch((error) => {
    assert.fail(`${error}: ${JSON.stringify(answer, undefined, 1)}`)
  })
  return answer as T
}

export function queueOf({ queues }: Overview, name: string): QueueView {
  return queues.find((queue) => queue.name === name) ?? assert.fail(`no queue ${name}`)
}
