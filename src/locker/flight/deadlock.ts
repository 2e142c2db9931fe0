import { type AsyncContext, runningWork } from '../../kernel/event-loop.ts'
import type { RunningWork } from '../../kernel/work-scheduler.ts'

/** A flight, or the work of several, as far as it can wait for others: whatever its work asks for, it waits for. */
export interface WaitNode {
  /** How many calls of its work wait for each flight. */
  waitsFor: Map<WaitNode, number> | undefined
}

/** A work that runs. */
export interface WorkScope extends RunningWork {
  /** The flight that it computes for. */
  readonly node: WaitNode
}

/** The work that is calling, if any. */
export function callingWork(): WorkScope | undefined {
  return runningWork.getStore() as WorkScope | undefined
}

/** Works that run now. */
let running = 0

/**
 * Runs a work in its scope, and in the async context of the call that it is of. While no work runs, the storage is switched off: on Node before 24 it makes every
 * promise of the process cost twice as much.
 */
export async function runInScope<T>(
  context: AsyncContext,
  scope: WorkScope,
  work: () => T | PromiseLike<T>,
): Promise<T> {
  running++
  try {
    return await context.run(() => runningWork.run(scope, work))
  } finally {
    running--
    if (running === 0) runningWork.disable()
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
    for (const waitedFor of node.waitsFor?.keys() ?? []) pending.push(waitedFor)
  }
  return false
}

/** Notes that a work waits for `target`, and lends its slot; the returned function takes both back. */
export function addWait({ node, slot }: WorkScope, target: WaitNode): () => void {
  node.waitsFor ??= new Map()
  const { waitsFor } = node
  waitsFor.set(target, (waitsFor.get(target) ?? 0) + 1)
  const resume = slot.lend()
  return () => {
    const left = (waitsFor.get(target) ?? 1) - 1
    if (left === 0) waitsFor.delete(target)
    else waitsFor.set(target, left)
    resume()
  }
}
