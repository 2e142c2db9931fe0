import type { Registry } from 'prom-client'
import type { PushFigures } from '../push/figures.ts'
import type { PromClient } from './prom-client.ts'

/** Adds the figures of the push workers of this gateway, which they count themselves. */
export function addPushMetrics(
  { Counter, Gauge }: PromClient,
  registry: Registry,
  pushes: () => readonly PushFigures[],
): void {
  const registers = [registry]
  new Counter({
    name: 'soloflight_push_attempts_total',
    help: 'Attempts of the push workers of this gateway by how they ended.',
    labelNames: ['queue', 'command', 'outcome'],
    registers,
    collect() {
      this.reset()
      for (const { queue, command, outcomes } of pushes())
        for (const [outcome, count] of Object.entries(outcomes)) this.inc({ queue, command, outcome }, count)
    },
  })
  new Gauge({
    name: 'soloflight_push_running',
    help: 'Requests of the push workers of this gateway that run.',
    labelNames: ['queue', 'command'],
    registers,
    collect() {
      this.reset()
      for (const { queue, command, running } of pushes()) this.set({ queue, command }, running)
    },
  })
}
