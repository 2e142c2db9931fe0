/** One of the figures that the library has to reach. */
interface Figure {
  what: string
  wanted: string
  measured: string
  reached: boolean
  kind: Kind
}

/** 'count': the same on every machine, so that missing it is a fault; 'time': to be read on a quiet one. */
type Kind = 'count' | 'time'

interface Format {
  unit?: string
  /** After the point. @default 2, of a count 0 */
  digits?: number
  /** What is aimed at beyond the limit. */
  goal?: number
  /** @default 'time' */
  kind?: Kind
}

const figures: Figure[] = []

/** Notes a figure and prints it. */
export function figure(figure: Figure): void {
  figures.push(figure)
  console.log(line(figure))
}

/** Notes a figure that is reached by a value up to `limit`. */
export function atMost(what: string, value: number, limit: number, format: Format = {}): void {
  bound(what, value, value <= limit, `at most ${limit}`, format)
}

/** Notes a figure that is reached by a value from `limit` up. */
export function atLeast(what: string, value: number, limit: number, format: Format = {}): void {
  bound(what, value, value >= limit, `at least ${limit}`, format)
}

function bound(
  what: string,
  value: number,
  reached: boolean,
  wanted: string,
  { unit = '', goal, kind = 'time', digits = kind === 'count' ? 0 : 2 }: Format,
): void {
  figure({
    what,
    wanted: `${wanted}${unit}${goal === undefined ? '' : `, goal ${goal}`}`,
    measured: `${value.toFixed(digits)}${unit}`,
    reached,
    kind,
  })
}

/** Notes a figure that is reached by these numbers alone, whatever the machine. */
export function exactly(what: string, measured: readonly number[], wanted: readonly number[]): void {
  const text = measured.join('; ')
  figure({
    what,
    wanted: wanted.join('; '),
    measured: text,
    reached: text === wanted.join('; '),
    kind: 'count',
  })
}

function line({ what, wanted, measured, reached }: Figure): string {
  return `  ${reached ? 'reached' : 'MISSED '}  ${what}: ${measured} (wanted: ${wanted})`
}

/** All figures once more. Returns those that were missed. */
export function summary(): Figure[] {
  heading('Figures')
  for (const each of figures) console.log(line(each))
  return figures.filter(({ reached }) => !reached)
}

export function heading(text: string): void {
  console.log(`\n${text}\n${'─'.repeat(text.length)}`)
}

/** Prints rows under the names of their columns; numbers stand on the right. */
export function table(columns: readonly string[], rows: readonly (readonly (string | number)[])[]): void {
  const cells = [columns, ...rows.map((row) => row.map(String))]
  const widths = columns.map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)))
  for (const row of cells) {
    const text = row.map((cell, column) =>
      column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
    )
    console.log(`  ${text.join('  ')}`.trimEnd())
  }
}
