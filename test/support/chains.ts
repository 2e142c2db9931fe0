import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { createRequire } from 'node:module'
import connect from 'connect'
import express from 'express'

const require = createRequire(import.meta.url)

/** The older major version, which has no types of its own here. */
const express4 = require('express4') as typeof express

export type Step = (
  request: IncomingMessage,
  response: ServerResponse,
  next: (error?: unknown) => void,
) => unknown

/** Parses JSON bodies, as all servers below can. */
export const json: () => Step = express4.json as () => Step

/** Servers with middlewares, and the one that has none but what it is given: each with these steps, one after the other. */
export const CHAINS: Record<string, (...steps: Step[]) => RequestListener> = {
  'node:http': (...steps) => {
    const run = (request: IncomingMessage, response: ServerResponse, at: number, error?: unknown): void => {
      const step = steps[at]
      if (error === undefined && step) {
        const next = (error?: unknown): void => run(request, response, at + 1, error)
        step(request, response, next)
      } else response.writeHead(error === undefined ? 404 : 500).end(error === undefined ? 'none' : 'failed')
    }
    return (request, response) => run(request, response, 0)
  },
  connect: (...steps) => {
    const app = connect()
    for (const step of steps) app.use(step as connect.NextHandleFunction)
    return app
  },
  'express 4': (...steps) => expressChain(express4, steps),
  'express 5': (...steps) => expressChain(express, steps),
}

function expressChain(library: typeof express, steps: Step[]): RequestListener {
  const app = library()
  for (const step of steps) app.use(step as express.RequestHandler)
  return app
}
