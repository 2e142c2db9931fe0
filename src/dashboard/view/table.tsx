import type { ComponentChildren } from 'preact'

/** A column of a table. The first one names the row. */
export interface Column<Row> {
  readonly head: string
  readonly cell: (row: Row) => ComponentChildren
  /** Numbers stand to the right. */
  readonly numeric?: true
  /** Not shown where there is little room. */
  readonly minor?: true
  /** A class that sets the width. */
  readonly size?: string
}

interface TableProps<Row> {
  readonly caption: string
  readonly columns: readonly Column<Row>[]
  readonly rows: readonly Row[]
  readonly keyOf: (row: Row) => string
  /** What is said if there are no rows. */
  readonly empty: ComponentChildren
}

// On a phone each row is a block, with which a browser forgets that it was a table: the roles say so again.
const ROLES = {
  table: { role: 'table' },
  group: { role: 'rowgroup' },
  row: { role: 'row' },
  head: { role: 'columnheader' },
  name: { role: 'rowheader' },
  cell: { role: 'cell' },
} as const

export function Table<Row>({ caption, columns, rows, keyOf, empty }: TableProps<Row>) {
  if (rows.length === 0) return <p class="empty">{empty}</p>
  return (
    <table {...ROLES.table}>
      <caption class="unseen">{caption}</caption>
      <thead {...ROLES.group}>
        <tr {...ROLES.row}>
          {columns.map((column) => (
            <th key={column.head} scope="col" class={classOf(column)} {...ROLES.head}>
              {column.head}
            </th>
          ))}
        </tr>
      </thead>
      <tbody {...ROLES.group}>
        {rows.map((row) => (
          <tr key={keyOf(row)} {...ROLES.row}>
            {columns.map((column, index) =>
              index === 0 ? (
                <th key={column.head} scope="row" class={classOf(column)} {...ROLES.name}>
                  {column.cell(row)}
                </th>
              ) : (
                <td key={column.head} class={classOf(column)} data-label={column.head} {...ROLES.cell}>
                  {column.cell(row)}
                </td>
              ),
            )}
          </tr>
        ))}
      </tbody>
    </table>
  )
}

function classOf<Row>({ numeric, minor, size = '' }: Column<Row>): string {
  return [numeric ? 'number' : '', minor ? 'minor' : '', size].filter((each) => each !== '').join(' ')
}
