// A process of the bench that asks for jobs over HTTP.

import { serve } from '../../test/support/process-child.ts'
import { valueFor } from '../contenders/contender.ts'
import { type Pumped, pump } from '../pump.ts'
import { type Payload, sumOf } from '../queues/payload.ts'
import { PayloadTrips } from '../trips.ts'
import { fieldOf, HttpConnection } from './connection.ts'

/** Connections that send nothing at the moment. */
const idle: HttpConnection[] = []
const trips = new PayloadTrips()

/** What the pump asks for. */
const KEY = 'job:0'

/** Sends a request on a connection that is free: there are as many as requests in flight. */
async function onConnection<T>(run: (connection: HttpConnection) => Promise<T>): Promise<T> {
  const connection = idle.pop()
  if (!connection) throw new Error('No connection is free')
  const result = await run(connection)
  idle.push(connection)
  return result
}

async function postAndWait(path: string, payload: Payload): Promise<unknown> {
  const body = JSON.stringify(payload)
  const answer = await onConnection((connection) => connection.request('POST', path, { body }))
  return answer.status === 200 ? JSON.parse(answer.body) : undefined
}

/** Takes a job, and finishes it with its result. Resolves with the number of the job. */
function takeAndFinish(path: string): Promise<number> {
  return onConnection(async (connection) => {
    const { status, head, body } = await connection.request('GET', `${path}?command=add&lease=30`)
    if (status !== 200) throw new Error(`Taking was answered by ${status}`)
    const job = JSON.parse(body) as Payload
    const headers = `X-Lease: ${fieldOf(head, 'x-lease') ?? job.n}\r\n`
    const finished = await connection.request('PUT', path, { headers, body: String(sumOf(job)) })
    if (finished.status !== 204) throw new Error(`Finishing was answered by ${finished.status}`)
    return job.n
  })
}

const handlers = {
  connect: async (port: number, count: number): Promise<void> => {
    for (const connection of idle.splice(0)) connection.close()
    while (idle.length < count) idle.push(await HttpConnection.open(port))
  },
  /** Posts jobs and waits for their results, so many at once. */
  postAndWait: (path: string, inFlight: number, ms: number): Promise<Pumped> =>
    trips.pump((payload) => postAndWait(path, payload), inFlight, ms),
  /** Takes and finishes jobs, so many at once. A job that comes twice is wrong. */
  takeAndFinish: (path: string, inFlight: number, ms: number): Promise<Pumped> => {
    const taken = new Set<number>()
    const right = valueFor(KEY)
    const get = async () => {
      const n = await takeAndFinish(path)
      if (taken.has(n)) return null
      taken.add(n)
      return right
    }
    return pump({ get, close: async () => {} }, [KEY], inFlight, ms)
  },
  /** Long polls, which are not awaited. */
  poll: (paths: readonly string[]): void => {
    for (const path of paths)
      void onConnection((connection) => connection.request('GET', path)).catch(() => {})
  },
}

export type HttpClientHandlers = typeof handlers

serve(handlers)
