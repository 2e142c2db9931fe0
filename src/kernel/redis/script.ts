import { createHash } from 'node:crypto'
import { messageOf } from '../codec/codec.ts'
import type { CommandSender, Request } from './command.ts'

type Argument = string | Buffer

/** Lua: `us` (µs) and `now` (ms) since the epoch, by the clock of the server. */
export const SERVER_CLOCK = `
local time = redis.call('TIME')
local us = time[1] * 1000000 + time[2]
local now = math.floor(us / 1000)`

/** A Lua script, which the server runs atomically. It is sent by its digest, and as text if the server does not have it. */
export class Script {
  readonly source: string
  readonly sha1: string

  constructor(source: string) {
    this.source = source
    this.sha1 = createHash('sha1').update(source).digest('hex')
  }

  /** Creates a request that runs it once. Bulk replies are Buffers. */
  with(keys: readonly string[], args: readonly Argument[]): Request {
    return new ScriptRequest(this, keys, args)
  }
}

/** One run of a script. A class instead of a literal: see churn.ts. */
class ScriptRequest implements Request {
  readonly #script: Script
  readonly #keys: readonly string[]
  readonly #args: readonly Argument[]

  constructor(script: Script, keys: readonly string[], args: readonly Argument[]) {
    this.#script = script
    this.#keys = keys
    this.#args = args
  }

  get key(): string | undefined {
    return this.#keys[0]
  }

  send(sender: CommandSender): Promise<unknown> {
    const { sha1, source } = this.#script
    const keys = this.#keys
    return sender.send('evalsha', [sha1, keys.length, ...keys, ...this.#args]).catch((error) => {
      // Never loaded, or lost to SCRIPT FLUSH, a restart or a failover. The script has not run.
      if (!messageOf(error).startsWith('NOSCRIPT')) throw error
      return sender.send('eval', [source, keys.length, ...keys, ...this.#args])
    })
  }
}
