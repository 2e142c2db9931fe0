import { Bar } from './bar.tsx'
import { inline } from './format.ts'

/** What a worker says of its progress: a bar, if it can be read as one; else its JSON. */
export function Progress({ value }: { value: unknown }) {
  const share = shareOf(value)
  return (
    <span class="load">
      {share !== undefined && <Bar value={share} label="Progress" text={`${Math.round(100 * share)} %`} />}
      {share !== undefined && typeof value === 'number' ? (
        <span class="text">{Math.round(100 * share)} %</span>
      ) : (
        <code>{inline(value)}</code>
      )}
    </span>
  )
}

/** 0.5; 50 (of 100); { done: 5, total: 10 }. */
function shareOf(value: unknown): number | undefined {
  if (typeof value === 'number') {
    if (value < 0 || value > 100) return undefined
    return value <= 1 ? value : value / 100
  }
  if (typeof value !== 'object' || value === null) return undefined
  const { done, total } = value as { done?: unknown; total?: unknown }
  return typeof done === 'number' && typeof total === 'number' && total > 0 ? done / total : undefined
}
