import { parseArgs } from 'node:util'
import { simulate as simulateBus } from './bus/run.ts'
import { simulate as simulateLocker } from './locker/run.ts'
import { simulate as simulateQueue } from './queue/run.ts'
import type { RunResult } from './run.ts'
import { simulate as simulateServices } from './services/run.ts'

/**
 * Simulates seeds for a given time: `npm run simulate -- --seconds 600`. Or traces one seed line by line:
 * `npm run simulate -- --seed 42`. `npm run simulate:queue` and `simulate:services` do the same with queues and services, `simulate:bus` with queues and topics
 * of a bus.
 */
const { values } = parseArgs({
  options: {
    queue: { type: 'boolean' },
    services: { type: 'boolean' },
    bus: { type: 'boolean' },
    seconds: { type: 'string', default: '60' },
    from: { type: 'string' },
    seed: { type: 'string' },
  },
})

const simulate: (seed: number, options?: { traced: boolean }) => Promise<RunResult<unknown>> = values.services
  ? simulateServices
  : values.queue
    ? simulateQueue
    : values.bus
      ? simulateBus
      : simulateLocker

async function show(seed: number): Promise<boolean> {
  const { trace, violations, steps } = await simulate(seed, { traced: true })
  console.log(trace.join('\n'))
  console.log(`seed ${seed}: ${steps} steps, ${violations.length} violations`)
  for (const { guarantee, what } of violations) console.log(`  ${guarantee} ${what}`)
  return violations.length === 0
}

async function campaign(seconds: number, from: number): Promise<boolean> {
  const end = performance.now() + seconds * 1000
  const found = new Map<string, number[]>()
  let runs = 0
  let steps = 0
  for (let seed = from; performance.now() < end; seed++) {
    const result = await simulate(seed)
    runs++
    steps += result.steps
    if (result.violations.length === 0) continue
    console.log(`seed ${seed} breaks:`)
    for (const { guarantee, what } of result.violations) {
      console.log(`  ${guarantee} ${what}`)
      const seeds = found.get(guarantee) ?? []
      if (seeds.at(-1) !== seed) found.set(guarantee, [...seeds, seed])
    }
  }
  console.log(`${runs} runs from seed ${from}, ${steps} steps`)
  for (const [guarantee, seeds] of found)
    console.log(`${guarantee}: ${seeds.length} seeds, ${seeds.slice(0, 10).join(' ')}`)
  return found.size === 0
}

const good =
  values.seed === undefined
    ? await campaign(Number(values.seconds), Number(values.from ?? Date.now() % 2 ** 31))
    : await show(Number(values.seed))
process.exitCode = good ? 0 : 1
