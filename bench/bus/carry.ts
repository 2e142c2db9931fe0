import { until } from '../../test/support/wait.ts'
import { commandsRun, commandsSent, type Stage } from '../stage.ts'
import { sum } from '../statistics.ts'
import { redisCpu } from '../trips.ts'
import type { BusChild } from './crew.ts'

/** How many messages a sender has on their way to Redis. */
export const IN_FLIGHT = 50

/** Processes between which messages go. */
export interface Crew {
  sender: BusChild
  receivers: readonly BusChild[]
}

/** What came of sending messages for a while, and receiving all of them. */
export interface Carried {
  /** Messages sent. */
  sent: number
  /** Messages received per millisecond, by all receivers, from the first one sent to the last one received. */
  rate: number
  /** Messages sent per millisecond, while they were sent. */
  sendRate: number
  /** Milliseconds until Redis has a message. */
  p50: number
  p99: number
  /** Redis commands a message, inside scripts too. */
  commands: number
  /** Microseconds of CPU a message: of the sender, of all receivers, of Redis. */
  senderCpu: number
  receiverCpu: number
  redisCpu: number
}

/** Sends for a while, and waits until everybody has everything and nothing goes on any more. */
export async function carry(
  { sender, receivers }: Crew,
  route: string,
  stage: Stage,
  ms: number,
): Promise<Carried> {
  const { server } = stage
  const before = await Promise.all(receivers.map((receiver) => receiver.call('heard', route, 0)))
  const cpu = async () => sum(await Promise.all(receivers.map((receiver) => receiver.call('cpu'))))
  const [cpuBefore, redisBefore] = [await cpu(), await redisCpu(server)]
  await server.resetStats()
  const { sent, startedAt, rate, ...pumped } = await sender.call('pump', route, IN_FLIGHT, ms)
  const after = await Promise.all(
    receivers.map((receiver, index) => receiver.call('heard', route, (before[index]?.received ?? 0) + sent)),
  )
  const commands = await commandsUntilQuiet(stage)
  const [cpuAfter, redisAfter] = [await cpu(), await redisCpu(server)]
  const received = sum(after.map((heard) => heard.received)) - sum(before.map((heard) => heard.received))
  return {
    sent,
    rate: received / (Math.max(...after.map(({ lastAt }) => lastAt)) - startedAt),
    sendRate: rate,
    p50: pumped.p50,
    p99: pumped.p99,
    commands: commands / sent,
    senderCpu: pumped.cpu,
    receiverCpu: (cpuAfter - cpuBefore) / sent,
    redisCpu: (redisAfter - redisBefore) / sent,
  }
}

/**
 * Commands that Redis ran since the statistics were reset, once it runs no more. A consumer that has received the last message
 * acknowledges it, or asks for another one; that is part of its cost, and not to be left to the next turn.
 */
async function commandsUntilQuiet({ server }: Stage): Promise<number> {
  let seen = -1
  const quiet = async () => {
    const before = seen
    seen = await commandsRun(server)
    return seen === before
  }
  await until(quiet, { what: 'Redis to be quiet', timeout: 20_000, every: 20 })
  return seen
}

/** Commands that clients send a message. */
export async function commandsAMessage(crew: Crew, route: string, stage: Stage): Promise<number> {
  let messages = 0
  const commands = await commandsSent(stage.server, async () => {
    messages = (await carry(crew, route, stage, 150)).sent
  })
  return commands / messages
}

/** Messages since the processes began that failed, got lost, or were received with another content, twice or out of order. */
export async function faultsOf({ sender, receivers }: Crew, route: string): Promise<number> {
  const { sent, failed } = await sender.call('sent', route)
  const heard = await Promise.all(receivers.map((receiver) => receiver.call('heard', route, sent)))
  const faults = heard.map(
    ({ received, wrong, disordered }) => Math.abs(sent - received) + wrong + disordered,
  )
  return failed + sum(faults)
}
