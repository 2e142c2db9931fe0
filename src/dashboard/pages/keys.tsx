import { useState } from 'preact/hooks'
import type { KeyView, Overview, ProcessView } from '../../gateway/overview/overview.ts'
import { Bar } from '../view/bar.tsx'
import { counted, duration } from '../view/format.ts'
import { Progress } from '../view/progress.tsx'
import { Why } from '../view/why.tsx'
import { Incomplete } from './queues.tsx'

/** Keys that are shown at once. */
const MOST = 100

/** The orders of keys. Those by waiters change places as callers come and go. */
const ORDERS = {
  key: { name: 'By name', compare: byKey },
  waiters: { name: 'Most waiters first', compare: byWaiters },
  age: { name: 'Oldest first', compare: byAge },
} as const

type Order = keyof typeof ORDERS

/** The keys: which process has each, and which wait for it. */
export function KeysPage({ overview }: { overview: Overview }) {
  const { keys, complete } = overview
  const [text, setText] = useState('')
  const [order, setOrder] = useState<Order>('key')
  const found = keys.filter(({ key }) => key.includes(text)).sort(ORDERS[order].compare)
  const waiters = keys.reduce((total, key) => total + key.waiters, 0)
  return (
    <>
      <div class="title">
        <h1>Who is waiting on what</h1>
        <span class="inputs">
          <input
            type="search"
            aria-label="Show keys that contain"
            placeholder="Filter keys"
            value={text}
            onInput={({ currentTarget }) => setText(currentTarget.value)}
          />
          <select
            aria-label="Order"
            value={order}
            onChange={({ currentTarget }) => setOrder(currentTarget.value as Order)}
          >
            {Object.entries(ORDERS).map(([value, { name }]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
        </span>
      </div>
      <p class="hint">
        {counted(keys.length, 'key')} held or awaited, {counted(waiters, 'waiter')}.
        {found.length > MOST && ` The first ${MOST} of ${found.length} are shown.`}
      </p>
      {found.length === 0 ? (
        <p class="empty card">
          {keys.length === 0 ? 'No key is held, and nobody waits for one.' : 'No key contains this text.'}
        </p>
      ) : (
        <ul class="keys">
          {found.slice(0, MOST).map((key) => (
            <Key key={key.key} view={key} />
          ))}
        </ul>
      )}
      {!complete && <Incomplete />}
    </>
  )
}

function byKey(one: KeyView, other: KeyView): number {
  return one.key < other.key ? -1 : 1
}

function byWaiters(one: KeyView, other: KeyView): number {
  return other.waiters - one.waiters || byKey(one, other)
}

function byAge(one: KeyView, other: KeyView): number {
  return other.age - one.age || byKey(one, other)
}

function Key({ view }: { view: KeyView }) {
  const { key, holder, fence, age, left, lease, waiters, waiting, progress, why } = view
  return (
    <li class="card key">
      <h2>
        <bdi>{key}</bdi>
      </h2>
      <Why text={why} />
      <dl class="pairs">
        <div>
          <dt>Processor</dt>
          <dd>{holder ? <Place of={holder} /> : 'none'}</dd>
        </div>
        <div>
          <dt>{holder ? 'Held for' : 'Awaited for'}</dt>
          <dd>{duration(age)}</dd>
        </div>
        <div>
          <dt>Fence</dt>
          <dd class="fence">{fence}</dd>
        </div>
        <div class="lease">
          <dt>Lease left</dt>
          <dd>
            {left === null || lease === null ? (
              'not known'
            ) : (
              <>
                <Bar
                  value={left / lease}
                  label={`Lease of ${key}`}
                  text={`${duration(left)} of ${duration(lease)}`}
                  drains
                />
                <span class="text">
                  {duration(Math.max(0, left))} of {duration(lease)}
                </span>
              </>
            )}
          </dd>
        </div>
        <div>
          <dt>Progress</dt>
          <dd>{progress === undefined || progress === null ? '–' : <Progress value={progress} />}</dd>
        </div>
        <div class="wide">
          <dt>Waiters</dt>
          <dd>
            {waiters === 0 ? (
              'none'
            ) : (
              <ul class="places">
                <li class="sum">{count(waiters, waiting.length)}</li>
                {waiting.slice(0, 12).map((each) => (
                  <li key={each.process}>
                    <Place of={each} /> <b>{each.waiters}</b>
                  </li>
                ))}
                {waiting.length > 12 && <li>and {waiting.length - 12} more</li>}
              </ul>
            )}
          </dd>
        </div>
      </dl>
    </li>
  )
}

function count(waiters: number, processes: number): string {
  if (processes === 0) return counted(waiters, 'waiter')
  return `${counted(waiters, 'waiter')} in ${counted(processes, 'process', 'processes')}`
}

function Place({ of: { host, pid, process } }: { of: ProcessView }) {
  return (
    <span class="place" title={process}>
      <bdi>{host}</bdi>
      <span class="quiet"> pid {pid}</span>
    </span>
  )
}
