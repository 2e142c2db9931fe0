import { TransientMap } from '../../kernel/collections.ts'
import { MAX_WAITED_COMMANDS } from '../../queue/internal.ts'
import type { Caller } from '../env.ts'
import type { AccessToken } from '../options.ts'
import { Shares } from './shares.ts'

/** A class instead of a literal: see kernel/collections.ts. */
class Wanted {
  requests = 0
  /** Gives back the place of the caller who was the first to want it. */
  readonly leave: () => void

  constructor(leave: () => void) {
    this.leave = leave
  }
}

/**
 * The commands whose jobs clients wait for at present. A client chooses their names, and each needs a worker in this process and in
 * the store. So one holder of tokens may use a quarter of the workers that there may be.
 */
export class WantedCommands {
  readonly #shares: Shares
  readonly #wanted = new TransientMap<string, Wanted>()

  constructor(tokens: readonly AccessToken[] | undefined) {
    this.#shares = new Shares(MAX_WAITED_COMMANDS, 'too many commands', tokens)
  }

  /**
   * Runs a request for jobs of a command. The command counts in the share of its first caller, until no request wants it.
   * @throws Problem 429 if the share of `caller` is used up, and no request wants the command yet.
   */
  async want<T>(
    queue: string,
    command: string,
    caller: Caller | undefined,
    run: () => Promise<T>,
  ): Promise<T> {
    const key = `${queue}\0${command}`
    const wanted = this.#wanted.get(key) ?? this.#add(key, caller)
    wanted.requests++
    try {
      return await run()
    } finally {
      if (--wanted.requests === 0) {
        this.#wanted.delete(key)
        wanted.leave()
      }
    }
  }

  #add(key: string, caller: Caller | undefined): Wanted {
    this.#shares.assertRoom(caller)
    const wanted = new Wanted(this.#shares.take(caller))
    this.#wanted.set(key, wanted)
    return wanted
  }
}
