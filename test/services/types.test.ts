// What the types of services allow and refuse. This file is compiled; only the test at its end runs.

import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { MemoryStore } from '../../src/index.ts'
import {
  type BroadcastAnswer,
  type Call,
  MemoryServices,
  type Remote,
  type Service,
  type ServiceHandler,
  Services,
  type ServingInfo,
} from '../../src/services/index.ts'
import { checkTypes } from '../support/type-check.ts'

type Sums = {
  add: (a: number, b: number) => number
  find: (id: string, deep?: boolean) => Promise<{ id: string } | undefined>
  lines: (path: string) => AsyncIterable<string>
  tick: () => void
  sum: (...numbers: number[]) => number
}

interface SumsByInterface {
  add(a: number, b: number): number
}

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false

/** Compiles only if the two types are identical. */
function same<_Result extends true>(): void {}

export async function objects(services: Services): Promise<unknown[]> {
  services.on('up', (info) => same<Same<typeof info, ServingInfo>>())
  services.on('message', (from, message) => same<Same<[typeof from, typeof message], [string, unknown]>>())
  // @ts-expect-error no such event
  services.on('upp', () => {})
  same<Same<ReturnType<typeof services.send>, Promise<boolean>>>()
  return [
    new Services(),
    new Services({ redis: 'redis://localhost', lease: 500 }),
    new Services({ store: new MemoryServices() }),
    await services.register<SumsByInterface>('sums', { capacity: 5, backlog: 10, version: '1' }),
    services.require<SumsByInterface>('sums', { timeout: 5, wait: 5, choose: 'local-first' }),
    // @ts-expect-error the store of a Locker has another type
    new Services({ store: new MemoryStore() }),
    // @ts-expect-error a misspelt option
    new Services({ leese: 5 }),
    // @ts-expect-error durations are numbers
    new Services({ timeout: '5s' }),
    // @ts-expect-error a misspelt option
    await services.register('sums', { capasity: 5 }),
    // @ts-expect-error one of two values
    services.require('sums', { choose: 'random' }),
    // @ts-expect-error a service has a name
    services.require(),
    // @ts-expect-error events are functions
    services.require<{ add: number }>('sums'),
  ]
}

export function handlers(service: Service<Sums>): void {
  service
    .on('add', (a, b, call) => {
      same<Same<[typeof a, typeof b, typeof call], [number, number, Call]>>()
      return a + b
    })
    .on('find', async (id, deep, call) => {
      same<Same<[typeof id, typeof deep], [string, boolean | undefined]>>()
      return call.signal.aborted ? undefined : { id }
    })
    .on('lines', async function* (path) {
      yield path
    })
    .on('tick', () => {})
    .on('sum', (...args) => args.length)
  const separate: ServiceHandler<[number, number], number> = (a, b, call) => call(null, a + b)
  service.on('add', separate)
  service.on('add', (a, b, call) => void setTimeout(call, 1, null, a + b))
  // @ts-expect-error no such event
  service.on('subtract', () => 1)
  // @ts-expect-error the arguments are numbers
  service.on('add', (a: string) => a.length)
  // @ts-expect-error the result is a number
  service.on('add', () => 'three')
  // @ts-expect-error a promise of a string is no number
  service.on('add', async () => 'three')
  // @ts-expect-error its chunks are texts
  service.on('lines', async function* () {
    yield 5
  })
  // @ts-expect-error no such event
  service.off('subtract')
}

export async function calls(remote: Remote<Sums>): Promise<void> {
  same<Same<Awaited<ReturnType<typeof remote.notify>>, void>>()
  const sum = remote.emit('add', 1, 2)
  same<Same<typeof sum, Promise<number>>>()
  const found = await remote.pemit(3, 'find', 'id')
  same<Same<typeof found, { id: string } | undefined>>()
  await remote.emit('sum', 1, 2, 3)
  await remote
    .with({ timeout: 5, within: 5, key: 'k', dedupe: true, ttl: 5, onProgress: () => {} })
    .emit('tick')
  for await (const line of remote.stream('lines', '/')) same<Same<typeof line, string>>()
  for await (const answer of remote.broadcast('add', 1, 2)) {
    same<Same<typeof answer, BroadcastAnswer<number>>>()
    if ('error' in answer) answer.error.message
    else answer.result.toFixed()
  }
  const add = remote.bind('add')
  same<Same<typeof add, (a: number, b: number) => Promise<number>>>()
  // @ts-expect-error no such event
  await remote.emit('subtract', 1)
  // @ts-expect-error two arguments
  await remote.emit('add', 1)
  // @ts-expect-error numbers
  await remote.emit('add', 1, '2')
  // @ts-expect-error at most two arguments
  await remote.pemit(2, 'add', 1, 2, 3)
  // @ts-expect-error the number of tries comes first
  await remote.pemit('add', 1, 2)
  // @ts-expect-error no arguments
  await remote.notify('tick', 1)
  // @ts-expect-error a text
  remote.stream('lines', 5)
  // @ts-expect-error a text
  remote.broadcast('find', 5)
  // @ts-expect-error no such event
  remote.bind('subtract')
  // @ts-expect-error numbers
  await add('1', '2')
  // @ts-expect-error a misspelt option
  remote.with({ timeOut: 5 })
  // @ts-expect-error true or a key
  remote.with({ dedupe: false })
}

/** Without a contract, everything is allowed. */
export async function untyped(services: Services): Promise<void> {
  const service = await services.register('any')
  service.on('add', (a: number, b: number) => a + b).on('other', (call: Call) => call(null, 1))
  const remote = services.require('any')
  const result: { any: 'thing' } = await remote.emit('add', 1, 'x')
  result.any
  for await (const chunk of remote.stream('x')) chunk.anything
  // @ts-expect-error an event has a name
  await remote.emit()
  // @ts-expect-error a handler is a function
  service.on('add', 5)
}

test('types - what compiles, and what does not', () => checkTypes(fileURLToPath(import.meta.url), 25))
