import type { Action } from '../data/jobs.ts'
import type { State } from '../router.ts'

// How states of jobs are named, and what can be done in each.

export const STATE_NAMES: Readonly<Record<State, string>> = {
  waiting: 'Waiting',
  active: 'Running',
  delayed: 'Delayed',
  failed: 'Failed',
  completed: 'Completed',
}

export const ACTIONS: Readonly<Record<State, readonly Action[]>> = {
  waiting: ['cancel', 'remove'],
  delayed: ['cancel', 'remove'],
  active: ['cancel', 'remove'],
  failed: ['retry', 'remove'],
  completed: ['retry', 'remove'],
}

export const ACTION_NAMES: Readonly<Record<Action, string>> = {
  retry: 'Retry',
  remove: 'Remove',
  cancel: 'Cancel',
}
