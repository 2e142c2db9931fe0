import type { Hint } from '../kernel/inbox.ts'
import type { Notice } from './store.ts'

/** Reads a message of the scripts; undefined for one that is none of theirs. */
export function noticeOf({ kind, fields, body }: Hint): Notice | undefined {
  if (kind === 'v' || kind === 'e') {
    const [fence, fresh, doomed] = fields
    if (!/^\d{1,16}$/.test(fence ?? '') || !/^\d{1,16}$/.test(fresh ?? '')) return undefined
    const outcome = { fence: Number(fence), fresh: Number(fresh), doomed: doomed === '1', bytes: body }
    return { kind: 'outcome', outcome: { kind: kind === 'v' ? 'value' : 'error', ...outcome } }
  }
  if (kind === 'm') return { kind: 'more' }
  if (kind === 'f') return { kind: 'free' }
  if (kind === 'p') return { kind: 'progress', bytes: body }
  return undefined
}
