/** The key of a record. */
export function keyOf(record: string): string {
  return record.slice(record.indexOf('/') + 1)
}

/** The record of a key. */
export function recordOf(key: string): string {
  return `soloflight:1:k/${key}`
}

/** The record of a tag. */
export function tagOf(tag: string): string {
  return `soloflight:1:t/${tag}`
}
