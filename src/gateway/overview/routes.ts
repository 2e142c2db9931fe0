import { jsonAnswer } from '../http/answer.ts'
import { eventStream } from '../http/event-stream.ts'
import { type Route, route } from '../routes/route.ts'
import { keyView } from './key-views.ts'
import { MAX_KEYS } from './reader.ts'
import { RECENT } from './recent-answers.ts'
import { keysOf } from './sources.ts'

/** What is held, what waits, and why. */
export const OVERVIEW_ROUTES: readonly Route[] = [
  route({
    method: 'GET',
    path: '/overview',
    scope: 'read',
    effect: 'reads',
    summary: 'All queues, workers, keys and services at this moment, and why each of them waits.',
    answers: { 200: 'The overview. While Redis is away, its lists are those that were read last.' },
    handle: async (_c, { snapshots }) => jsonAnswer(200, await snapshots.current()),
  }),
  route({
    method: 'GET',
    path: '/overview/events',
    scope: 'read',
    effect: 'reads',
    summary: 'The overview as server-sent events, one in a second.',
    answers: { 200: 'Events without a name: each is an overview.' },
    handle: (c, deps) =>
      eventStream(c, deps, async (stream) => {
        const stop = deps.snapshots.watch((frame) => stream.send(frame))
        await stream.ended
        stop()
      }),
  }),
  route({
    method: 'GET',
    path: ['/locks/', '/locks'],
    scope: 'read',
    effect: 'reads',
    summary: 'The keys that are held or awaited, by which processes, and why.',
    answers: { 200: '`{ keys, complete }`.' },
    async handle(_c, { overviewSources }) {
      const answers = await overviewSources.answers.notOlderThan(RECENT)
      const keys = await keysOf(overviewSources, answers)
      const shown = keys.slice(0, MAX_KEYS).map(keyView)
      return jsonAnswer(
        200,
        JSON.stringify({ keys: shown, complete: answers.complete && keys.length <= MAX_KEYS }),
      )
    },
  }),
]
