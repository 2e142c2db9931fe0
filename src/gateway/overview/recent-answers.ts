import type { CensusMember } from '../../kernel/census.ts'
import type { Clock } from '../../kernel/time.ts'
import { type Answers, askAll, NO_ANSWERS } from './census-items.ts'

/** How long processes have to answer, ms. */
const WITHIN = 800

/** Answers of this age are used again by routes that clients may call often, ms. */
export const RECENT = 1_000

/**
 * What all processes have answered a moment ago. Every question costs each process an answer, and a process answers ten
 * questions in a second, whoever asks: so a gateway asks once for all who want to know.
 */
export class RecentAnswers {
  readonly #members: readonly CensusMember[]
  readonly #clock: Clock
  #recent: { readonly at: number; readonly answers: Promise<Answers> } | undefined

  constructor(members: readonly CensusMember[], clock: Clock) {
    this.#members = members
    this.#clock = clock
  }

  /** The answers, at most so old (ms). Never rejects: if nobody can be asked, they are empty and not complete. */
  notOlderThan(age: number): Promise<Answers> {
    const now = this.#clock.now()
    if (this.#recent && now - this.#recent.at <= age) return this.#recent.answers
    const answers = askAll(this.#members, WITHIN).catch(() => NO_ANSWERS)
    this.#recent = { at: now, answers }
    return answers
  }

  /** What this process answers has changed: it is asked again. */
  forget(): void {
    this.#recent = undefined
  }
}
