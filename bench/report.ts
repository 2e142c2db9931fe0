/** One of the figures that the library has to reach. */
export interface Figure {
  what: string
  wanted: string
  measured: string
  reached: boolean
  /** 'count': the same on every machine, so that missing it is a fault; 'time': to be read on a quiet one. */
  kind: 'count' | 'time'
}

const figures: Figure[] = []

/** Notes a figure and prints it. */
export function figure(figure: Figure): void {
  figures.push(figure)
  console.log(line(figure))
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
