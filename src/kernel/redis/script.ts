import { createHash } from 'node:crypto'
import { messageOf } from '../codec/codec.ts'
import type { CommandSender, Request } from './command.ts'

type Argument = string | Buffer

/** Lua: `us` and `now` (ms), since the epoch, as the server tells the time. */
export const SERVER_CLOCK = `
local time = redis.call('TIME')
local us = time[1] * 1000000 + time[2]
local now = math.floor(us / 1000)`

/** A Lua script that the server runs in one atomic step. Sent by its digest; its text follows when the server lacks it. */
export class Script {
  readonly source: string
  readonly sha1: string

  constructor(source: string) {
    this.source = source
    this.sha1 = createHash('sha1').update(source).digest('hex')
  }

  /** A request to run it once. Bulk replies arrive as Buffers. */
  with(keys: readonly string[], args: readonly Argument[]): Request {
    return new ScriptRequest(this, keys, args)
  }
}

/** One run of a script. Made by a constructor: see churn.ts. */
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
      // Lost to SCRIPT FLUSH, a restart or a failover, or never loaded. Nothing has run.
      if (!messageOf(error).startsWith('NOSCRIPT')) throw error
      return sender.send('eval', [source, keys.length, ...keys, ...this.#args])
    })
  }
}
