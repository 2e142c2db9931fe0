import { createHash } from 'node:crypto'

/**
 * Ranks instances for a name by rendezvous hashing (highest random weight): each process that knows the same instances gets
 * the same order, each instance is the first of an even share of all names, and an instance that is added or removed changes
 * the order of the others for no name.
 *
 * D. G. Thaler and C. V. Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", IEEE/ACM Transactions on Networking
 * 6(1), 1998.
 */
export function rank<T>(name: string, items: readonly T[], nameOf: (item: T) => string): T[] {
  const weighed = items.map((item) => ({ item, weight: weightOf(nameOf(item), name) }))
  weighed.sort((one, other) => Buffer.compare(other.weight, one.weight))
  return weighed.map(({ item }) => item)
}

function weightOf(instance: string, name: string): Buffer {
  return createHash('sha256')
    .update(JSON.stringify([instance, name]))
    .digest()
}
