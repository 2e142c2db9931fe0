import type { ComponentChildren } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'
import { reasonOf } from '../data/http.ts'
import { noticeRefusal } from '../data/session.ts'

interface DialogProps {
  readonly title: string
  readonly children: ComponentChildren
  readonly onClose: () => void
}

/** A modal dialog. It takes the focus, and gives it back when it is closed. */
export function Dialog({ title, children, onClose }: DialogProps) {
  const element = useRef<HTMLDialogElement>(null)
  useEffect(() => {
    const dialog = element.current
    dialog?.showModal()
    return () => dialog?.close()
  }, [])
  return (
    <dialog ref={element} aria-labelledby="dialog-title" onClose={onClose}>
      <h2 id="dialog-title">{title}</h2>
      {children}
    </dialog>
  )
}

interface FormDialogProps extends DialogProps {
  /** What the button says that does it. */
  readonly action: string
  readonly isDangerous?: boolean
  /** Closes the dialog when it resolves; shows why, when it rejects. */
  readonly run: (form: FormData) => Promise<void>
}

/** A dialog in which something is done, or not. */
export function FormDialog({ title, children, action, isDangerous = false, run, onClose }: FormDialogProps) {
  const [state, setState] = useState<'open' | 'running' | { readonly failed: string }>('open')
  const submit = async (event: SubmitEvent) => {
    event.preventDefault()
    if (state === 'running') return
    const form = new FormData(event.currentTarget as HTMLFormElement)
    setState('running')
    try {
      await run(form)
      onClose()
    } catch (error) {
      noticeRefusal(error)
      setState({ failed: reasonOf(error) })
    }
  }
  return (
    <Dialog title={title} onClose={onClose}>
      <form onSubmit={submit}>
        {children}
        <p class="failure" role="alert">
          {typeof state === 'object' ? state.failed : ''}
        </p>
        <div class="buttons">
          <button type="button" onClick={onClose}>
            Close
          </button>
          <button type="submit" class={isDangerous ? 'danger' : 'main'} disabled={state === 'running'}>
            {action}
          </button>
        </div>
      </form>
    </Dialog>
  )
}
