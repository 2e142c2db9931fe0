/** What a child answers: functions by name, of and to what the structured clone can carry. */
export type Handlers = Record<string, (...args: never[]) => unknown>

export interface Request {
  readonly id: number
  readonly name: string
  readonly args: unknown[]
}

export interface PlainError {
  readonly name: string
  readonly message: string
  readonly stack: string | undefined
  readonly code: unknown
}

export type Reply =
  | { readonly ready: true }
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: PlainError }
  | { readonly event: string; readonly data: unknown }
