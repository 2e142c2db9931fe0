import { areNumbers, type Hint } from '../../../kernel/redis/inbox.ts'
import type { Notice, Outcome } from '../store.ts'

/** Reads a message of the scripts; undefined for one that is none of theirs. */
export function noticeOf({ kind, fields, body }: Hint): Notice | undefined {
  if (kind === 'v' || kind === 'e') {
    const [fence, fresh, invalidated, stale = '0', tagged = '0'] = fields
    if (!areNumbers([fence, fresh, stale, tagged])) return undefined
    const at = Number(tagged)
    if (at > body.length) return undefined
    const outcome: Outcome = {
      kind: kind === 'v' ? 'value' : 'error',
      fence: Number(fence),
      bytes: body.subarray(at),
      ttlLeft: Number(fresh),
      invalidated: invalidated === '1',
      staleLeft: Number(stale),
      tags: body.toString('utf8', 0, at),
    }
    return { kind: 'outcome', outcome }
  }
  if (kind === 'm') return { kind: 'too-large' }
  if (kind === 'f') return { kind: 'free' }
  if (kind === 'w') return { kind: 'unwanted' }
  if (kind === 'p') return { kind: 'progress', bytes: body }
  return undefined
}
