/** How many times larger the larger input is. */
const FACTOR = 16

/** Linear work grows by 16, what has to collect garbage for it by up to thrice that, quadratic work by 256. */
const MOST_GROWTH = 80

/** Less CPU time than this is not measured, µs. */
const MEASURABLE = 1_000

/** It is measured so often at least, and again until so much CPU time was spent on it, µs. */
const ROUNDS = 3
const ENOUGH = 1_000_000

/** CPU time of this process in `run`, µs: the others of a loaded machine do not count. */
function cpuOf(run: () => unknown): number {
  const before = process.cpuUsage()
  run()
  const { user, system } = process.cpuUsage(before)
  return user + system
}

/**
 * How the CPU time of what `make` returns for an input of a size grows when the input is sixteen times as large: undefined
 * when it is in proportion, or the growth. The smaller size is the first at which the time can be measured, from `from`,
 * and at most `to`; what is not measurable there is as good as none. The least of several runs counts on both sides, and
 * one fitting pair is enough: work that is quadratic fits never, and a disturbed machine does so in one of the rounds.
 */
export function excessiveGrowth(
  make: (size: number) => () => unknown,
  { from = 1_000, to = 50_000 }: { from?: number; to?: number } = {},
): number | undefined {
  let size = from
  let run = make(size)
  // Compiled, before it is measured.
  for (let i = 0; i < 3; i++) run()
  while (cpuOf(run) < MEASURABLE && size < to) {
    size *= 2
    run = make(size)
  }
  const large = make(size * FACTOR)
  let less = Number.POSITIVE_INFINITY
  let more = Number.POSITIVE_INFINITY
  let spent = 0
  for (let round = 0; round < ROUNDS || spent < ENOUGH; round++) {
    less = Math.min(less, cpuOf(run))
    const taken = cpuOf(large)
    spent += taken
    more = Math.min(more, taken)
    if (more <= MOST_GROWTH * Math.max(less, MEASURABLE)) return undefined
  }
  return more / less
}
