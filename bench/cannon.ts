import autocannon from 'autocannon'
import { LOCALHOST } from '../test/support/ports.ts'

/** What came of one volley of requests. */
export interface Volley {
  /** Requests a second. */
  rate: number
  /** How long each took, ms. */
  times: number[]
  failed: number
}

/** Asks a server of this machine for one page, as fast as it answers, on 50 connections. */
export function fire(port: number, seconds: number): Promise<Volley> {
  const times: number[] = []
  return new Promise((resolve, reject) => {
    const options = { url: `http://${LOCALHOST}:${port}/`, connections: 50, duration: seconds }
    const instance = autocannon(options, (error, { requests, errors, timeouts, non2xx }) => {
      if (error) reject(error)
      else resolve({ rate: requests.total / seconds, times, failed: errors + timeouts + non2xx })
    })
    instance.on('response', (_client: unknown, _status: number, _bytes: number, ms: number) => times.push(ms))
  })
}
