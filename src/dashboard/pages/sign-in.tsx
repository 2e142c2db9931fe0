import { useState } from 'preact/hooks'
import { Refusal, reasonOf } from '../data/http.ts'
import { signIn } from '../data/session.ts'

export function SignIn() {
  const [failure, setFailure] = useState('')
  const [isRunning, setRunning] = useState(false)
  const submit = async (event: SubmitEvent) => {
    event.preventDefault()
    const form = event.currentTarget as HTMLFormElement
    const token = String(new FormData(form).get('token') ?? '').trim()
    if (token === '' || isRunning) return
    setRunning(true)
    setFailure('')
    try {
      await signIn(token)
    } catch (error) {
      const isUnknown = error instanceof Refusal && error.status === 401
      setFailure(isUnknown ? 'The gateway does not know this token.' : `Not signed in: ${reasonOf(error)}.`)
    } finally {
      setRunning(false)
    }
  }
  return (
    <form class="sign-in card" onSubmit={submit}>
      <h1>Sign in</h1>
      <label>
        Token
        <input name="token" type="password" autocomplete="current-password" required spellcheck={false} />
      </label>
      <p class="hint">
        One of the tokens that the gateway was started with. Its scopes decide what you may do here.
      </p>
      <p class="failure" role="alert">
        {failure}
      </p>
      <button type="submit" class="main" disabled={isRunning}>
        Sign in
      </button>
    </form>
  )
}
