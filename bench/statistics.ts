/** The value below which this part of the sorted values lies; NaN for none. */
export function quantile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length / 2
  const [low = Number.NaN, high = low] = sorted.slice(Math.ceil(middle) - 1, Math.floor(middle) + 1)
  return (low + high) / 2
}

export function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

/** Milliseconds on a clock that all processes of the machine share. */
export function now(): number {
  return Number(process.hrtime.bigint()) / 1e6
}

/**
 * A 95 % confidence interval of the median, from the order of the values alone: the ranks of the binomial distribution. It is
 * infinite for fewer than six values.
 */
export function medianInterval(values: readonly number[]): [low: number, high: number] {
  const sorted = [...values].sort((a, b) => a - b)
  const count = sorted.length
  let outside = 0
  let rank = 0
  // Of `count` values, at most `rank` are below the median with the probability `outside`.
  for (let probability = 0.5 ** count; outside + probability <= 0.025; rank++) {
    outside += probability
    probability *= (count - rank) / (rank + 1)
  }
  if (rank === 0) return [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY]
  return [sorted[rank - 1] ?? Number.NaN, sorted[count - rank] ?? Number.NaN]
}
