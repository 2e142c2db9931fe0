import { median } from './statistics.ts'

/** What everybody measured in each round. */
export class Rounds<Name, Result> {
  readonly #results: ReadonlyMap<Name, readonly Result[]>

  constructor(results: ReadonlyMap<Name, readonly Result[]>) {
    this.#results = results
  }

  of(name: Name): readonly Result[] {
    return this.#results.get(name) ?? []
  }

  values(name: Name, of: (result: Result) => number): number[] {
    return this.of(name).map(of)
  }

  median(name: Name, of: (result: Result) => number): number {
    return median(this.values(name, of))
  }

  /** The median of the ratios of the rounds: both values of a pair saw the same load of the machine. */
  ratio(name: Name, peer: Name, of: (result: Result) => number): number {
    const others = this.values(peer, of)
    return median(this.values(name, of).map((value, round) => value / (others[round] ?? Number.NaN)))
  }
}

/** Lets everybody measure once a round, in an order that changes, so that nobody always follows the same one. */
export async function interleaved<Name, Result>(
  names: readonly Name[],
  rounds: number,
  measure: (name: Name, round: number) => Promise<Result>,
): Promise<Rounds<Name, Result>> {
  const results = new Map<Name, Result[]>(names.map((name) => [name, []]))
  for (let round = 0; round < rounds; round++) {
    const from = round % names.length
    for (const name of [...names.slice(from), ...names.slice(0, from)]) {
      results.get(name)?.push(await measure(name, round))
    }
  }
  return new Rounds(results)
}
