import { MAX_WAITED_COMMANDS } from '../../queue/internal.ts'
import type { Caller } from '../env.ts'
import type { AccessToken } from '../options.ts'
import { Shares } from './shares.ts'

/**
 * The commands whose jobs clients wait for at present. A client chooses their names, and each needs a worker in this process and in
 * the store. So one holder of tokens may use a quarter of the workers that there may be.
 */
export class WantedCommands {
  readonly #shares: Shares

  constructor(tokens: readonly AccessToken[] | undefined) {
    this.#shares = new Shares(MAX_WAITED_COMMANDS, 'too many commands', tokens)
  }

  /**
   * Runs a request that waits for jobs of a command. The command counts once in the share of each holder with such a request.
   * @throws Problem 429 if the share of `caller` is used up, and the command is not in it.
   */
  async want<T>(
    queue: string,
    command: string,
    caller: Caller | undefined,
    run: () => Promise<T>,
  ): Promise<T> {
    const key = `${queue}\0${command}`
    this.#shares.assertRoom(caller, key)
    const leave = this.#shares.take(caller, key)
    try {
      return await run()
    } finally {
      leave()
    }
  }
}
