import type { Route } from '../bus/bus.ts'
import { type Carried, type Crew, carry, faultsOf, IN_FLIGHT } from '../bus/carry.ts'
import { type BusChild, busMember } from '../bus/crew.ts'
import type { BusName } from '../bus/entrant.ts'
import { KINDS } from '../bus/messages.ts'
import { atLeast, exactly, heading, table } from '../report.ts'
import { interleaved, type Rounds } from '../rounds.ts'
import { endChildren, type Stage } from '../stage.ts'
import { sum } from '../statistics.ts'

const NAMES: readonly BusName[] = ['soloflight', 'ioredis', 'busmq']
const QUICK: readonly BusName[] = ['soloflight', 'ioredis']

const SUBSCRIBERS = 8

const ROUTES: readonly Route[] = KINDS.map((kind) => ({
  name: `fan-out-${kind}`,
  via: 'pubsub',
  reliable: false,
  kind,
}))

/** One process that publishes, and those that subscribe. */
interface Company extends Crew {
  name: BusName
}

/** What came of one kind of messages, for everybody. */
interface Result {
  route: Route
  rounds: Rounds<Company, Carried>
  faults: ReadonlyMap<Company, number>
}

/** Each library has topics of its own. */
const topicOf = ({ name }: Pick<Company, 'name'>, route: Route) => `${route.name}.${name}`

async function openCompany(name: BusName, { server }: Stage): Promise<Company> {
  const routes = ROUTES.map((route) => ({ ...route, name: topicOf({ name }, route) }))
  const receivers: BusChild[] = []
  // One after the other: all at once, on a busy machine, none would be ready in time.
  while (receivers.length < SUBSCRIBERS) receivers.push(await busMember(name, [server], { receives: routes }))
  return { name, sender: await busMember(name, [server], { sends: routes }), receivers }
}

/** Messages are published in one process and received in several others. */
export async function busFanOut(stage: Stage): Promise<void> {
  const rounds = stage.quick ? 2 : 12
  const ms = stage.quick ? 150 : 400
  heading(
    `bus-fan-out: messages of 1 KB, one process publishes and ${SUBSCRIBERS} subscribe, ${IN_FLIGHT} in flight, ${rounds} rounds of ${ms} ms`,
  )
  const companies: Company[] = []
  try {
    for (const name of stage.quick ? QUICK : NAMES) companies.push(await openCompany(name, stage))
    const results: Result[] = []
    for (const route of ROUTES) {
      const turn = (company: Company) => carry(company, topicOf(company, route), stage, ms)
      // Long enough for all of them to be compiled.
      await interleaved(companies, stage.quick ? 1 : 5, turn)
      const measured = await interleaved(companies, rounds, turn)
      const faults = new Map<Company, number>()
      for (const company of companies) faults.set(company, await faultsOf(company, topicOf(company, route)))
      results.push({ route, rounds: measured, faults })
    }
    report(companies, results)
  } finally {
    for (const { sender, receivers } of companies) await endChildren([sender, ...receivers])
  }
}

function report(companies: readonly Company[], results: readonly Result[]): void {
  const find = (name: BusName) => companies.find((company) => company.name === name)
  const [own, bare] = [find('soloflight'), find('ioredis')]
  const rate = ({ rounds }: Result, company: Company) =>
    bare ? rounds.ratio(company, bare, (carried) => carried.rate) : Number.NaN
  table(
    [
      'a message',
      'deliveries, /s',
      'of ioredis',
      'published, /s',
      'CPU µs of publisher',
      `${SUBSCRIBERS} subscribers`,
      'Redis',
      'commands',
      'lost or wrong',
    ],
    results.flatMap((result) =>
      companies.map((company) => [
        `${result.route.kind}: ${company.name}`,
        result.rounds.median(company, (carried) => carried.rate * 1000).toFixed(0),
        rate(result, company).toFixed(2),
        result.rounds.median(company, (carried) => carried.sendRate * 1000).toFixed(0),
        result.rounds.median(company, ({ senderCpu }) => senderCpu).toFixed(0),
        result.rounds.median(company, ({ receiverCpu }) => receiverCpu).toFixed(0),
        result.rounds.median(company, ({ redisCpu }) => redisCpu).toFixed(0),
        result.rounds.median(company, ({ commands }) => commands).toFixed(1),
        result.faults.get(company) ?? Number.NaN,
      ]),
    ),
  )
  if (!own) return
  exactly(
    `published messages, lost, wrong or out of order at ${SUBSCRIBERS} subscribers`,
    [sum(results.map(({ faults }) => faults.get(own) ?? Number.NaN))],
    [0],
  )
  for (const result of results) {
    const what = `deliveries to ${SUBSCRIBERS} subscribers, ${result.route.kind}, of ioredis`
    atLeast(what, rate(result, own), 0.8, { goal: 0.95 })
  }
}
