import { jsonResponse } from '../http/responses.ts'
import { type Route, route } from '../routes/route.ts'
import { keysOf, tellingsOf } from './facts.ts'
import { keyView } from './key-views.ts'
import { MAX_KEYS } from './reader.ts'

/** Who waits on what. */
export const OVERVIEW_ROUTES: readonly Route[] = [
  route({
    method: 'GET',
    path: '/overview',
    scope: 'read',
    effect: 'reads',
    summary: 'All queues, workers, keys and services at this moment, and why each of them waits.',
    answers: { 200: 'The overview. While Redis is away, its lists are those that were read last.' },
    handle: async (_c, { snapshots }) => jsonResponse(200, JSON.stringify(await snapshots.current())),
  }),
  route({
    method: 'GET',
    path: ['/locks/', '/locks'],
    scope: 'read',
    effect: 'reads',
    summary: 'The keys that are held or awaited, by which processes, and why.',
    answers: { 200: '`{ keys, complete }`.' },
    async handle(_c, { facts }) {
      const { keys, complete } = await keysOf(facts, await tellingsOf(facts, 'gateway'))
      const shown = keys.slice(0, MAX_KEYS).map(keyView)
      return jsonResponse(200, JSON.stringify({ keys: shown, complete: complete && keys.length <= MAX_KEYS }))
    },
  }),
]
