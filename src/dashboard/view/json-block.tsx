import { useMemo, useState } from 'preact/hooks'
import { indented } from '../data/json-text.ts'
import { count } from './format.ts'

/** Characters that are shown at once: more makes the page slow. */
const SHOWN = 20_000

/** JSON as it was posted, or indented. */
export function JsonBlock({ title, text }: { title: string; text: string }) {
  const [isIndented, setIndented] = useState(true)
  const [limit, setLimit] = useState(SHOWN)
  const lines = useMemo(() => indented(text), [text])
  const whole = isIndented ? lines : text
  return (
    <section class="card">
      <div class="title">
        <h2>{title}</h2>
        <span class="quiet">{count(text.length)} characters</span>
        {lines !== text && (
          <button type="button" aria-pressed={!isIndented} onClick={() => setIndented(!isIndented)}>
            As posted
          </button>
        )}
      </div>
      <pre tabIndex={0} aria-label={title} role="region">
        {whole.slice(0, limit)}
      </pre>
      {whole.length > limit && (
        <p class="more">
          <button type="button" onClick={() => setLimit(limit * 10)}>
            Show more
          </button>
          <span class="hint">
            {count(limit)} of {count(whole.length)} characters are shown.
          </span>
        </p>
      )}
    </section>
  )
}
