import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { inspect } from 'node:util'
import { channelName, type TelemetryEvent } from '../../src/index.ts'

const EVENTS: readonly TelemetryEvent[] = ['connection', 'wait', 'work', 'settle', 'lost', 'hook', 'attempt']

/** Everything that the library tells in this process: warnings, telemetry, and what calls reject with. */
export class Told implements Disposable {
  readonly #all: unknown[] = []
  readonly #hear = (message: unknown): void => {
    this.#all.push(message)
  }

  constructor() {
    process.on('warning', this.#hear)
    for (const event of EVENTS) subscribe(channelName(event), this.#hear)
  }

  /** Keeps what each of them rejects with; those that resolve are of no interest. */
  async failures(...promises: Promise<unknown>[]): Promise<unknown[]> {
    const settled = await Promise.allSettled(promises)
    const failures = settled.flatMap((each) => (each.status === 'rejected' ? [each.reason as unknown] : []))
    this.#all.push(...failures)
    return failures
  }

  /** Keeps what a function throws, which it must. */
  thrown(name: string, run: () => unknown): void {
    assert.throws(run, (error) => this.#all.push(error) > 0, name)
  }

  /** Keeps whatever was shown in another way. */
  note(...shown: unknown[]): void {
    this.#all.push(...shown)
  }

  /** How many things were told. */
  get size(): number {
    return this.#all.length
  }

  /** Fails if any of the secrets is in any of it, however it is looked at. */
  assertWithout(...secrets: string[]): void {
    assert.ok(this.#all.length > 0, 'nothing was told')
    for (const each of this.#all) {
      for (const text of textsOf(each))
        for (const secret of secrets) {
          const bytes = Array.from(Buffer.from(secret), (byte) => byte.toString(16)).join(' ')
          assert.ok(!text.includes(secret) && !text.includes(bytes), `${secret} is in ${text}`)
        }
    }
  }

  [Symbol.dispose](): void {
    process.off('warning', this.#hear)
    for (const event of EVENTS) unsubscribe(channelName(event), this.#hear)
  }
}

/** What may be read of a value. */
function textsOf(value: unknown): string[] {
  const texts = [inspect(value, { depth: 10, showHidden: true, maxStringLength: null }), String(value)]
  try {
    texts.push(JSON.stringify(value) ?? '')
  } catch {
    // Not everything has a JSON.
  }
  return texts
}
