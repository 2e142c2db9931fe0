import { Signal, useSignal } from '../data/signal.ts'

/** How long a notice stays, ms. */
const SHOWN = 6_000

const notice = new Signal<{ readonly text: string; readonly isBad: boolean } | undefined>(undefined)
let timer: ReturnType<typeof setTimeout> | undefined

/** Says what has happened, also to a screen reader, when it has finished what it says. */
export function say(text: string, isBad = false): void {
  clearTimeout(timer)
  notice.value = { text, isBad }
  timer = setTimeout(() => {
    notice.value = undefined
  }, SHOWN)
}

export function Notice() {
  const shown = useSignal(notice)
  return (
    <p class={`notice ${shown ? 'shown' : ''} ${shown?.isBad ? 'bad' : ''}`} role="status">
      {shown?.text}
    </p>
  )
}
