import { LOCALHOST } from '../test/support/ports.ts'
import { Child } from '../test/support/process.ts'
import { portOf, type RedisServer } from '../test/support/redis-server.ts'
import type { BenchHandlers } from './child.ts'
import { type Layers, layersOf, type Name, type Terms } from './contenders/contender.ts'
import { type Build, buildEnvironment } from './library.ts'

/** What a part is given. */
export interface Stage {
  server: RedisServer
  /** Few rounds: to see that everything works. */
  quick: boolean
}

export type BenchChild = Child<BenchHandlers>

/** `build`: the library that it measures. */
export function forkChild(build?: Build): Promise<BenchChild> {
  return Child.fork<BenchHandlers>(new URL('./child.ts', import.meta.url), { env: buildEnvironment(build) })
}

/** One after the other: all at once, on a busy machine, none would be ready in time. */
export async function forkChildren(count: number): Promise<BenchChild[]> {
  const children: BenchChild[] = []
  while (children.length < count) children.push(await forkChild())
  return children
}

export async function endChildren(children: Iterable<Child>): Promise<void> {
  await Promise.all([...children].map((child) => child.kill()))
}

/** Opens a contender in the first of the layers that it can be. */
export function open(
  child: BenchChild,
  name: Name,
  { server }: Stage,
  layers: readonly Layers[],
  terms: Partial<Pick<Terms, 'ttl' | 'max' | 'lease'>> & { prefix: string },
): Promise<void> {
  const address = { host: LOCALHOST, port: portOf(server) }
  return child.call('open', name, {
    ttl: 600_000,
    max: 50_000,
    lease: 10_000,
    ...address,
    ...terms,
    layers: layersOf(name, layers),
  })
}

/** A name that Redis keys of this contender may begin with, in this part. */
export function prefixOf(part: string, name: Name): string {
  return `${part}.${name.replace(/\W+/g, '-')}`
}

/** Commands that are no work: the bench's own, and signs of life. */
const ASIDE: readonly string[] = [
  'ping',
  'info',
  'config|resetstat',
  'config',
  'echo',
  'client|list',
  'monitor',
  'hello',
]

/** Commands that the bench itself sends: all others are of whoever is measured, PINGs too. */
export const OWN_COMMANDS: readonly string[] = ['info', 'config', 'client', 'echo', 'monitor']

/** Commands that Redis ran since the statistics were reset, inside scripts too. */
export async function commandsRun(server: RedisServer): Promise<number> {
  const stats = await server.commandStats()
  return Object.entries(stats).reduce(
    (total, [name, calls]) => (ASIDE.includes(name) ? total : total + calls),
    0,
  )
}

/** Commands that clients send while something happens, without those that are `aside`. Not to be timed: the monitor costs. */
export async function commandsSent(
  server: RedisServer,
  during: () => Promise<unknown>,
  aside: readonly string[] = ASIDE,
): Promise<number> {
  await using monitor = await server.monitor()
  await during()
  const lines = await monitor.lines()
  return lines.filter(({ fromScript, command }) => !fromScript && !aside.includes(command)).length
}
