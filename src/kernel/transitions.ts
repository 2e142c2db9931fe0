/** The legal transitions of a state machine: for each state, the states that may follow it. */
export type Transitions<State extends string> = { readonly [From in State]: readonly State[] }

/** @throws Error when `to` may not follow `from`: that is always a bug of this library. */
export function assertTransition<State extends string>(
  machine: string,
  transitions: Transitions<State>,
  from: State,
  to: State,
): void {
  if (!transitions[from].includes(to)) throw new Error(`Illegal transition of a ${machine}: ${from} to ${to}`)
}
