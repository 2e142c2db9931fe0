import { z } from 'zod'
import type { CensusMember, LayerItem, ProcessIdentity } from '../../kernel/census.ts'
import type { LockerCensusItem } from '../../locker/internal.ts'
import type { QueueCensusItem } from '../../queue/internal.ts'

// What processes answer, checked: anybody who can publish in Redis can forge an answer. Times in ms.

const text = z.string().max(1_100)
const count = z.number().min(0).max(Number.MAX_SAFE_INTEGER)

const ofCommand = { queue: text, prefix: text, command: text }
const QUEUE_ITEM: z.ZodType<QueueCensusItem> = z.discriminatedUnion('kind', [
  z.object({
    ...ofCommand,
    kind: z.literal('worker'),
    concurrency: count,
    busy: count,
    takes: z.literal(true).exactOptional(),
  }),
  z.object({ ...ofCommand, kind: z.literal('running'), id: text, fence: count, attempt: count, age: count }),
  z.object({ ...ofCommand, kind: z.literal('waiting'), id: text, age: count, waiters: count }),
])

const LOCKER_ITEM: z.ZodType<LockerCensusItem> = z.object({
  key: text,
  record: text,
  state: z.enum(['held', 'waiting']),
  fence: count,
  age: count,
  waiters: count,
  mode: z.enum(['shared', 'local', 'bypass']).exactOptional(),
  leaseLeft: count.exactOptional(),
  lease: count.exactOptional(),
  progress: z.unknown().optional(),
})

/** What a gateway knows of its clients. */
export type ClientCensusItem = { readonly prefix: string } & (
  | {
      /** A worker that has named itself. */
      readonly kind: 'worker'
      readonly queue: string
      readonly command: string
      readonly id: string
      /** Its jobs, as one gateway has counted them: one may be taken at this gateway, and go back at another. */
      readonly taken: number
      readonly returned: number
      readonly failed: number
      /** Since it was first seen, and last seen. */
      readonly age: number
      readonly silent: number
      /** Its requests that wait for a job. */
      readonly waiting: number
    }
  | {
      /** A worker that was signed off: what other gateways knew of it before is over. */
      readonly kind: 'gone'
      readonly queue: string
      readonly id: string
      readonly age: number
    }
  | {
      /** A job that was taken for a lease. */
      readonly kind: 'job'
      readonly queue: string
      readonly command: string
      readonly id: string
      readonly fence: number
      /** Of the worker that has it; '' if it has not named itself. */
      readonly worker: string
      readonly age: number
      readonly left: number
    }
  | {
      /** A key that a client holds. */
      readonly kind: 'key'
      readonly key: string
      readonly record: string
      readonly fence: number
      readonly age: number
      readonly left: number
      readonly lease: number
      readonly progress?: unknown
    }
)

const CLIENT_ITEM: z.ZodType<ClientCensusItem> = z.discriminatedUnion('kind', [
  z.object({
    ...{ ...ofCommand, kind: z.literal('worker'), id: text, taken: count, returned: count, failed: count },
    ...{ age: count, silent: count, waiting: count },
  }),
  z.object({ kind: z.literal('gone'), prefix: text, queue: text, id: text, age: count }),
  z.object({
    ...{
      ...ofCommand,
      kind: z.literal('job'),
      id: text,
      fence: count,
      worker: text,
      age: count,
      left: count,
    },
  }),
  z.object({
    ...{ kind: z.literal('key'), prefix: text, key: text, record: text, fence: count },
    ...{ age: count, left: count, lease: count, progress: z.unknown().optional() },
  }),
])

/** What a process does for a service. */
export interface ServiceCensusItem {
  readonly prefix: string
  readonly service: string
  readonly version: string
  readonly busy: number
  readonly leaseLeft: number
  /** Null: no limit. */
  readonly capacity: number | null
}

const SERVICE_ITEM: z.ZodType<ServiceCensusItem> = z.object({
  prefix: text,
  service: text,
  version: text,
  busy: count,
  leaseLeft: count,
  capacity: count.nullable(),
})

/** The layers that are asked, and what an item of each is. Those of which there are few come first: an answer may be cut. */
const LAYERS = {
  gateway: CLIENT_ITEM,
  workers: QUEUE_ITEM,
  services: SERVICE_ITEM,
  locker: LOCKER_ITEM,
}

type Layer = keyof typeof LAYERS

/** An item, and the process that it is of. */
export interface CensusEntry<Item> extends ProcessIdentity {
  readonly item: Item
}

/** What all processes have answered. */
export interface Answers {
  readonly gateway: readonly CensusEntry<ClientCensusItem>[]
  readonly workers: readonly CensusEntry<QueueCensusItem>[]
  readonly services: readonly CensusEntry<ServiceCensusItem>[]
  readonly locker: readonly CensusEntry<LockerCensusItem>[]
  /** Whether each process has answered, and completely. */
  readonly complete: boolean
}

/** What is known while nobody answers. */
export const NO_ANSWERS: Answers = { gateway: [], workers: [], services: [], locker: [], complete: false }

/** Asks all processes about all layers, by one question to each of the members. @throws as `census` */
export async function askAll(members: readonly CensusMember[], within: number): Promise<Answers> {
  const layer = Object.keys(LAYERS).join(' ')
  const results = await Promise.all(
    [...new Set(members)].map((member) => member.census<LayerItem>({ layer, within })),
  )
  const entries: Record<Layer, CensusEntry<never>[]> = { gateway: [], workers: [], services: [], locker: [] }
  for (const { process, host, pid, since, items } of results.flatMap(({ answers }) => answers)) {
    for (const { layer: of, item } of items) {
      if (!Object.hasOwn(LAYERS, of)) continue
      const { data } = LAYERS[of as Layer].safeParse(item)
      if (data !== undefined) entries[of as Layer].push({ process, host, pid, since, item: data as never })
    }
  }
  return { ...entries, complete: results.every(({ complete }) => complete) }
}
