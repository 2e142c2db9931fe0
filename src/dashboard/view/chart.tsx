import { useEffect, useRef } from 'preact/hooks'
import uPlot from 'uplot'
import type { Lines } from '../data/history.ts'
import { Signal, useSignal } from '../data/signal.ts'

/** A line of a chart: the custom property of its colour. */
export interface Line {
  readonly label: string
  readonly color: '--accent' | '--quiet' | '--danger'
  readonly isFilled?: true
  readonly isDashed?: true
}

interface ChartProps {
  readonly lines: readonly Line[]
  readonly data: Lines
  /** What it shows, in words. */
  readonly label: string
  readonly height: number
  /** Small ones have neither axes nor a grid. */
  readonly isSmall?: boolean
}

/** Seconds that a chart shows: as long as there are samples, from the shortest to the longest. */
const SHORTEST = 30
const LONGEST = 180
/** Seconds between the marks of the x axis. */
const MARKS = [5, 15, 30, 60]

const dark = window.matchMedia('(prefers-color-scheme: dark)')
const isDark = new Signal(dark.matches)
dark.addEventListener('change', () => {
  isDark.value = dark.matches
})

export function Chart({ lines, data, label, height, isSmall = false }: ChartProps) {
  const place = useRef<HTMLDivElement>(null)
  const plot = useRef<uPlot>(undefined)
  const scheme = useSignal(isDark)
  const aligned = [data.x, ...data.y] as uPlot.AlignedData
  // Data are set by the effect below; the colours are read anew with the scheme
  useEffect(() => {
    const element = place.current
    if (!element) return
    const made = new uPlot(optionsOf(lines, element.clientWidth, height, isSmall), aligned, element)
    plot.current = made
    const resized = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height }))
    resized.observe(element)
    return () => {
      resized.disconnect()
      made.destroy()
    }
  }, [scheme, height, isSmall])
  useEffect(() => plot.current?.setData(aligned))
  return <div class={isSmall ? 'chart small' : 'chart'} role="img" aria-label={label} ref={place} />
}

function optionsOf(lines: readonly Line[], width: number, height: number, isSmall: boolean): uPlot.Options {
  const style = getComputedStyle(document.documentElement)
  const color = (name: string) => style.getPropertyValue(name).trim()
  const axis: uPlot.Axis = {
    stroke: color('--quiet'),
    grid: { stroke: color('--line'), width: 1 },
    ticks: { show: false },
    font: '11px system-ui, sans-serif',
  }
  return {
    width,
    height,
    padding: isSmall ? [2, 0, 2, 0] : [8, 18, 0, 0],
    cursor: { show: false },
    legend: { show: false },
    axes: isSmall
      ? [{ show: false }, { show: false }]
      : [
          { ...axis, splits: marksOf, values: agesOf, size: 24 },
          { ...axis, size: 44 },
        ],
    scales: {
      x: {
        time: false,
        range: (_plot, low, high) => [Math.max(Math.min(low, high - SHORTEST), high - LONGEST), high],
      },
      y: { range: (_plot, _low, high) => [0, Math.max(1, (high ?? 0) * 1.1)] },
    },
    series: [
      {},
      ...lines.map(({ label, color: name, isFilled, isDashed }): uPlot.Series => {
        const stroke = color(name)
        return {
          label,
          stroke,
          width: 1.5,
          points: { show: false },
          ...(isFilled && { fill: `${stroke}22` }),
          ...(isDashed && { dash: [4, 3] }),
        }
      }),
    ],
  }
}

/** The marks of the x axis: six of them at most. */
function marksOf(_plot: uPlot, _axis: number, low: number, high: number): number[] {
  const step = MARKS.find((each) => (high - low) / each <= 6) ?? 60
  const marks: number[] = []
  for (let mark = high; mark >= low; mark -= step) marks.unshift(mark)
  return marks
}

/** How long ago they are. */
function agesOf(plot: uPlot, marks: number[]): string[] {
  const now = plot.scales['x']?.max ?? 0
  return marks.map((mark) => (now - mark < 0.5 ? 'now' : `−${Math.round(now - mark)} s`))
}

/** What the lines of a chart are. */
export function Legend({ lines }: { lines: readonly Line[] }) {
  return (
    <ul class="legend">
      {lines.map(({ label, color, isDashed }) => (
        <li key={label}>
          <span class={`key-line ${color.slice(2)} ${isDashed ? 'dashed' : ''}`} aria-hidden="true" />
          {label}
        </li>
      ))}
    </ul>
  )
}
