import { createRequire } from 'node:module'
import type { Payload } from '../queues/payload.ts'
import { type OpenServices, TIMEOUT } from './services.ts'

/** What the bench uses of it, stated here so that the repository type-checks without its being installed. */
interface Moleculer {
  ServiceBroker: new (options: {
    transporter: { type: 'Redis'; options: { host: string; port: number } }
    logger: false
  }) => Broker
}

interface Broker {
  createService(schema: {
    name: string
    actions: Record<string, (context: { params: Payload }) => unknown>
  }): unknown
  start(): Promise<void>
  waitForServices(names: readonly string[], timeout: number, interval: number): Promise<unknown>
  call(action: string, params: Payload, options: { timeout: number }): Promise<unknown>
}

/** It has a package of its own: it goes with an older ioredis than the others. */
const require = createRequire(new URL('../peers/moleculer/package.json', import.meta.url))

/** With its defaults, and without its log. */
export const open: OpenServices = async ({ host, port }, { serves, calls }, answer) => {
  const { ServiceBroker }: Moleculer = require('moleculer')
  const broker = new ServiceBroker({
    transporter: { type: 'Redis', options: { host, port } },
    logger: false,
  })
  for (const name of serves) {
    broker.createService({ name, actions: { add: ({ params }) => answer(params) } })
  }
  await broker.start()
  if (calls.length > 0) await broker.waitForServices(calls, TIMEOUT, 50)
  return { call: (name, payload) => broker.call(`${name}.add`, payload, { timeout: TIMEOUT }) }
}
