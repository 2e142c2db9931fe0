import { call, Refusal } from './http.ts'
import { Signal } from './signal.ts'

export type Scope = 'read' | 'submit' | 'work' | 'admin'

/** What the caller may do. */
export interface Session {
  /** Whether the gateway asks for a token at all. */
  readonly tokens: boolean
  /** Empty: nobody has signed in. */
  readonly scopes: readonly Scope[]
  /** Of the token. */
  readonly name?: string
}

/** Undefined until the gateway has told. */
export const session = new Signal<Session | undefined>(undefined)

export async function readSession(): Promise<void> {
  session.value = JSON.parse(await call('GET', ['session'])) as Session
}

/** Exchanges a token for a cookie. @throws Refusal 401 if the token is unknown */
export async function signIn(token: string): Promise<void> {
  session.value = JSON.parse(await call('POST', ['session'], { body: JSON.stringify({ token }) })) as Session
}

export async function signOut(): Promise<void> {
  await call('DELETE', ['session'])
  session.value = { tokens: true, scopes: [] }
}

/** A call that was refused because the session has ended leads to the sign-in. */
export function noticeRefusal(error: unknown): void {
  if (error instanceof Refusal && error.status === 401) session.value = { tokens: true, scopes: [] }
}

export function may(scope: Scope): boolean {
  const scopes = session.value?.scopes ?? []
  return scopes.includes(scope) || scopes.includes('admin')
}
