import { useEffect, useRef } from 'preact/hooks'

interface BarProps {
  /** 0 to 1. */
  readonly value: number
  /** What it measures, for those who do not see it. */
  readonly label: string
  /** The value in words. */
  readonly text: string
  /** It becomes shorter between two snapshots, and does not jump. */
  readonly drains?: boolean
}

/** A bar that is as long as a value. */
export function Bar({ value, label, text, drains = false }: BarProps) {
  const share = Math.min(1, Math.max(0, value))
  const before = useRef(share)
  // A lease that was renewed is long again at once.
  const isDraining = drains && share < before.current
  useEffect(() => {
    before.current = share
  })
  return (
    <span
      class="bar"
      role="meter"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={Math.round(100 * share)}
      aria-valuetext={text}
    >
      <span
        class={`fill ${isDraining ? 'draining' : ''} ${drains && share < 0.25 ? 'low' : ''}`}
        style={{ transform: `scaleX(${share.toFixed(3)})` }}
      />
    </span>
  )
}

/** A bar with its text beside it. */
export function Load({ busy, capacity, label }: { busy: number; capacity: number | null; label: string }) {
  const text = capacity === null ? `${busy}, no limit` : `${busy} of ${capacity}`
  return (
    <span class="load">
      {capacity !== null && <Bar value={capacity > 0 ? busy / capacity : 0} label={label} text={text} />}
      <span class="text">{text}</span>
    </span>
  )
}
