/** The jobs of a push worker. */
export interface PushFigures {
  readonly queue: string
  readonly command: string
  /** Requests that run. */
  readonly running: number
  /** Attempts by how they ended. */
  readonly outcomes: Readonly<Record<'completed' | 'failed' | 'retried' | 'lost', number>>
}
