/** Warnings that were given, so that none is given twice. Bounded: a process has few reasons to be warned. */
const given = new Set<string>()

const MAX_GIVEN = 1000

/**
 * Tells the operator of this process something once, by `process.emitWarning`: on stderr unless the process listens
 * for 'warning'. `code` is stable, `SOLOFLIGHT_…`; the same code with another message is another warning.
 */
export function warnOnce(code: `SOLOFLIGHT_${string}`, message: string): void {
  const warning = `${code} ${message}`
  if (given.has(warning) || given.size >= MAX_GIVEN) return
  given.add(warning)
  process.emitWarning(message, { type: 'SoloflightWarning', code })
}
