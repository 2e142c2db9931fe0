import { AsyncLocalStorage } from 'node:async_hooks'

/** A flight, as far as it can wait for others: whatever its work asks for, it waits for. */
export interface WaitNode {
  /** Name of the record that it computes. */
  readonly record: string
  /** Whether its work, if it still runs, runs for nobody. */
  readonly over: boolean
  /** How many calls of its work wait for each flight. */
  waitsFor: Map<WaitNode, number> | undefined
}

const works = new AsyncLocalStorage<WaitNode>()

/** The flight whose work is calling, if any. */
export function callingWork(): WaitNode | undefined {
  return works.getStore()
}

/** Works that run now. */
let running = 0

/**
 * Runs a work on behalf of its flight. While no work runs, the storage is switched off: on Node before 24 it makes every
 * promise of the process cost twice as much.
 */
export async function asWorkOf<T>(node: WaitNode, work: () => T | PromiseLike<T>): Promise<T> {
  running++
  try {
    return await works.run(node, work)
  } finally {
    running--
    if (running === 0) works.disable()
  }
}

/** Whether waiting for `target` would be waiting for `caller` itself, directly or through other flights. */
export function wouldDeadlock(caller: WaitNode, target: WaitNode): boolean {
  const seen = new Set<WaitNode>()
  const pending = [target]
  for (let node = pending.pop(); node; node = pending.pop()) {
    if (node === caller) return true
    if (seen.has(node)) continue
    seen.add(node)
    if (node.waitsFor) pending.push(...node.waitsFor.keys())
  }
  return false
}

/** Notes that `caller` waits for `target`; the returned function takes it back. */
export function noteWait(caller: WaitNode, target: WaitNode): () => void {
  caller.waitsFor ??= new Map()
  const waits = caller.waitsFor
  waits.set(target, (waits.get(target) ?? 0) + 1)
  return () => {
    const left = (waits.get(target) ?? 1) - 1
    if (left === 0) waits.delete(target)
    else waits.set(target, left)
  }
}
