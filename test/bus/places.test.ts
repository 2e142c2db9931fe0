// Where the queues of a bus are: over several servers, while instances are added, lost and restored.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Member } from '../../src/bus/context.ts'
import { Bus, type BusOptions, type Queue } from '../../src/bus/index.ts'
import { rank } from '../../src/bus/places/rendezvous.ts'
import { RendezvousPlaces } from '../../src/bus/places/rendezvous-places.ts'
import { RedisPlaceStore } from '../../src/bus/store/redis/places/place-store.ts'
import type { PlaceStore } from '../../src/bus/store/store.ts'
import { Connection, systemClock } from '../../src/kernel/index.ts'
import { type BusServers, busServers } from '../support/bus-servers.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { rejectionOf, timed, until } from '../support/wait.ts'

const NAMES = Array.from({ length: 200 }, (_, index) => `queue-${index}`)

/** Attaches the queues of these names. Resolves with them, and with the errors of the others. */
async function attachAll(bus: Bus, names: readonly string[]): Promise<Map<string, Queue | Error>> {
  const attached = names.map(async (name) => {
    const queue = bus.queue(name)
    const error = await queue.attach().then(
      () => undefined,
      (reason: Error) => reason,
    )
    return [name, error ?? queue] as const
  })
  return new Map(await Promise.all(attached))
}

/** How many servers have each queue. */
async function copies(t: BusServers): Promise<Map<string, number>> {
  const counts = new Map<string, number>()
  for (const name of (await t.queues()).flat()) counts.set(name, (counts.get(name) ?? 0) + 1)
  return counts
}

/** Records the events of the instances. */
function eventsOf(bus: Bus): string[] {
  const events: string[] = []
  bus.on('online', () => events.push('online'))
  bus.on('offline', () => events.push('offline'))
  bus.on('degraded', (instance) => events.push(`degraded ${instance}`))
  bus.on('restored', (instance) => events.push(`restored ${instance}`))
  return events
}

/** The two best instances of a name. */
function bestOf(name: string, names: readonly string[]): string[] {
  return rank(name, names, (instance) => instance).slice(0, 2)
}

test('rank - names are spread evenly, and an instance more moves only its own share', () => {
  const instances = ['a:6379/0', 'b:6379/0', 'c:6379/0', 'd:6379/0']
  const names = Array.from({ length: 4000 }, (_, index) => `name-${index}`)
  const first = (name: string, known: readonly string[]) => rank(name, known, (instance) => instance)[0]
  for (const instance of instances) {
    const share = names.filter((name) => first(name, instances) === instance).length
    assert.ok(share > 850 && share < 1150, `${instance} has ${share} of 4,000`)
  }
  for (const name of names) {
    const before = first(name, instances.slice(0, 3))
    assert.ok([before, 'd:6379/0'].includes(first(name, instances)))
    assert.equal(first(name, [...instances].reverse()), first(name, instances))
  }
})

test('one instance - nothing is looked up: an attach is one call', async () => {
  await using t = await busServers(1)
  const bus = t.open({ redis: t.urls[0] })
  await bus.connect()
  await bus.queue('warm').attach()
  await t.servers[0]?.resetStats()
  await bus.queue('queue').attach()
  const { evalsha = 0, eval: evaluated = 0 } = (await t.servers[0]?.commandStats()) ?? {}
  assert.equal(evalsha + evaluated, 1)
})

for (const count of [2, 3]) {
  test(`${count} instances - every bus finds a queue where it was made, whatever the order of its list`, async () => {
    await using t = await busServers(count)
    const maker = t.open()
    for (const queue of (await attachAll(maker, NAMES)).values()) assert.ok(!(queue instanceof Error))
    const spread = (await t.queues()).map((names) => names.length)
    for (const share of spread) assert.ok(share > 200 / count / 2, `the shares are ${spread}`)
    const other = t.open({ redis: [...t.urls].reverse() })
    for (const name of NAMES) {
      const place = await other.queue(name).find()
      assert.equal(place, bestOf(name, t.names)[0])
    }
    for (const queue of NAMES.slice(0, 20)) assert.equal(await other.queue(queue).attach(), true)
    assert.equal((await t.queues()).flat().length, NAMES.length)
  })
}

test('an instance more - queues stay where they are and are found; new ones go there too', async () => {
  await using t = await busServers(3)
  const before = t.open({ redis: t.urls.slice(0, 2) })
  await attachAll(before, NAMES)
  const after = t.open()
  for (const name of NAMES) assert.equal(await after.queue(name).attach(), true)
  assert.deepEqual((await t.queues())[2], [])
  await attachAll(
    after,
    NAMES.map((name) => `new-${name}`),
  )
  const [, , added = []] = await t.queues()
  assert.ok(added.length > 40, `${added.length} of 200 new queues are on the new instance`)
})

test('B4 two lists - processes that race to make queues never make one on two instances', async () => {
  await using t = await busServers(3)
  const [one = '', two = '', three = ''] = t.urls
  const lists: BusOptions[] = [
    { redis: [one, two], existingOnly: [three] },
    { redis: [three, two, one] },
    { redis: [two, one], existingOnly: [three] },
    { redis: t.urls },
  ]
  // Eight hundred attempts in one process, on a busy machine.
  const buses = lists.map((list) => t.open({ ...list, unavailableAfter: 20_000 }))
  await Promise.all(buses.map((bus) => bus.connect()))
  const outcomes = await Promise.all(buses.map((bus) => attachAll(bus, NAMES)))
  for (const attached of outcomes) {
    for (const [name, queue] of attached) assert.ok(!(queue instanceof Error), `${name}: ${queue}`)
  }
  const counts = await copies(t)
  assert.equal(counts.size, NAMES.length)
  assert.deepEqual(
    [...counts].filter(([, count]) => count !== 1),
    [],
  )
})

test('an instance is killed - its share rejects in time, other names do not notice; then it is restored', async () => {
  await using t = await busServers(3)
  const bus = t.open({ unavailableAfter: 1_000 })
  const events = eventsOf(bus)
  await bus.connect()
  const queues = [...(await attachAll(bus, NAMES))] as [string, Queue][]
  const [lost] = t.servers
  const [lostName = ''] = t.names
  await lost?.kill()
  await Promise.all(
    queues.map(async ([name, queue]) => {
      const isLost = bestOf(name, t.names)[0] === lostName
      const { error, value, ms } = await timed(() => queue.push('message'))
      if (isLost) assert.equal((error as { code?: string }).code, 'E_UNAVAILABLE')
      else assert.equal(value, 1)
      assert.ok(ms < (isLost ? 2_000 : 1_000), `${name} took ${ms} ms`)
    }),
  )
  await until(() => events.includes(`degraded ${lostName}`), { what: 'degraded' })
  assert.equal(bus.isOnline(), true)
  assert.deepEqual(
    t.names.map((name) => bus.isOnline(name)),
    [false, true, true],
  )

  const fresh = NAMES.map((name) => `fresh-${name}`)
  const made = await attachAll(bus, fresh)
  for (const [name, queue] of made) {
    assert.equal(queue instanceof Error, bestOf(name, t.names)[0] === lostName, name)
    if (queue instanceof Error) assert.match(queue.message, new RegExp(lostName))
    const unknown = bus.queue(`unknown-${name}`)
    if (!bestOf(unknown.name, t.names).includes(lostName)) assert.equal(await unknown.exists(), false)
    else assert.equal(((await rejectionOf(unknown.exists())) as { code?: string }).code, 'E_UNAVAILABLE')
  }

  await lost?.restart()
  await until(() => events.includes(`restored ${lostName}`), { what: 'restored' })
  assert.deepEqual(events, ['online', `degraded ${lostName}`, `restored ${lostName}`])
  const again = await attachAll(
    bus,
    fresh.map((name) => `${name}-again`),
  )
  for (const queue of again.values()) assert.ok(!(queue instanceof Error))
})

test('two instances, one is down - a queue on the other one is found by a process that has not used it', async () => {
  await using t = await busServers(2)
  const maker = t.open()
  await attachAll(maker, NAMES.slice(0, 20))
  const [lostName = ''] = t.names
  await t.servers[0]?.kill()
  const bus = t.open({ unavailableAfter: 500 })
  for (const [name, queue] of await attachAll(bus, NAMES.slice(0, 20))) {
    const isLost = bestOf(name, t.names)[0] === lostName
    assert.equal(queue instanceof Error, isLost, `${name}: ${queue}`)
  }
})

test('a creator that has died - its name is free when the reservation is over; until then others reject', async () => {
  await using t = await busServers(2)
  await using connection = new Connection(t.urls[0] ?? '')
  const places = new RedisPlaceStore(connection, 'soloflight')
  assert.equal(await places.reserve('queue', 'name', 'x'.repeat(22), 1_000, 1_000), 'reserved')
  const hasty = t.open({ unavailableAfter: 300 })
  const { error, ms } = await timed(() => hasty.queue('name').attach())
  assert.equal((error as { code?: string }).code, 'E_UNAVAILABLE')
  assert.ok(ms < 600, `${ms} ms`)
  assert.equal(await t.open().queue('name').attach(), false)
  assert.equal((await t.queues()).flat().length, 1)
})

test('a place that is remembered - a queue that was closed and made again elsewhere is found there', async () => {
  await using t = await busServers(3)
  const before = t.open({ redis: t.urls.slice(0, 2) })
  const after = t.open()
  const name = NAMES.find((candidate) => bestOf(candidate, t.names)[0] === t.names[2]) ?? assert.fail()
  const first = before.queue(name)
  await first.attach()
  assert.notEqual(await after.queue(name).find(), t.names[2])
  await first.close()
  await after.queue(name).attach()
  assert.equal(await after.queue(name).find(), t.names[2])
})

test('bus.connection - it is the one of the instance where the queue is', async () => {
  await using t = await busServers(3)
  const before = t.open({ redis: t.urls.slice(0, 2) })
  const [name = ''] = NAMES.filter((candidate) => bestOf(candidate, t.names)[0] === t.names[2])
  await before.queue(name).attach()
  const bus = t.open()
  assert.equal((await bus.connection(name)).address, await bus.queue(name).find())
  const [fresh = ''] = NAMES.filter((candidate) => candidate !== name)
  assert.equal((await bus.connection(fresh)).address, bestOf(fresh, t.names)[0])
  await using memory = new Bus()
  assert.match(String(await rejectionOf(memory.connection('name'))), /one in memory has no connection/)
})

/** An instance of which only the places are used. */
function memberNamed(name: string, places: Partial<PlaceStore>): Member {
  const none: PlaceStore = {
    exists: async () => false,
    reserve: async () => 'reserved',
    release: async () => {},
  }
  return { instance: { name, places: { ...none, ...places } } } as unknown as Member
}

test('B4 a record that appears on another instance during the reservations is used, and none is made', async () => {
  let isThere = false
  const reserve = async () => {
    isThere = true
    return 'reserved' as const
  }
  const making = [memberNamed('a', { reserve }), memberNamed('b', { reserve })]
  const other = memberNamed('c', { exists: async () => isThere })
  const places = new RendezvousPlaces({ making, existingOnly: [other] }, systemClock, 2_000)
  const used: string[] = []
  await places.place('queue', 'name', async ({ instance }) => used.push(instance.name))
  assert.deepEqual(used, ['c'])
})

test('reservations - the second best first and longer; both end, the best first; late ones are not used', async () => {
  const calls: string[] = []
  const clock = new ManualClock()
  let delay = 4_001
  const member = (name: string) =>
    memberNamed(name, {
      reserve: async (_kind, _name, token, ttl) => {
        calls.push(`reserve ${name} ${ttl} ${token.length}`)
        return 'reserved'
      },
      release: async () => void calls.push(`release ${name}`),
      exists: async () => {
        // Time passes while the third one is asked.
        if (name === third && calls.length > 0) clock.advance(delay)
        return false
      },
    })
  const [best = '', second = '', third = ''] = rank('name', ['a', 'b', 'c'], (instance) => instance)
  const instances = { making: ['a', 'b', 'c'].map(member), existingOnly: [] }
  const places = new RendezvousPlaces(instances, clock, 60_000)
  let uses = 0
  const placed = places.place('queue', 'name', async () => ++uses)
  const steps = [
    `reserve ${second} 10000 22`,
    `reserve ${best} 5000 22`,
    `release ${best}`,
    `release ${second}`,
  ]
  await until(() => calls.length === 4, { what: 'the end of the reservations' })
  assert.deepEqual([calls, uses], [steps, 0])
  delay = 0
  clock.advance(20)
  assert.equal(await placed, 1)
  await until(() => calls.length === 8, { what: 'the end of the reservations' })
  assert.deepEqual(calls, [...steps, ...steps])
})

test('B4 a note - a queue that is not at its best instance is not made again while its own is down, if it was found before', async () => {
  await using t = await busServers(3)
  const [one = '', two = '', three = ''] = t.urls
  const [name = ''] = NAMES.filter(
    (candidate) =>
      bestOf(candidate, t.names)[0] === t.names[2] &&
      bestOf(candidate, t.names.slice(0, 2))[0] === t.names[0],
  )
  const before = t.open({ redis: [one, two], existingOnly: [three] })
  await before.queue(name).attach({ ttl: 2_000 })
  // The list has changed: its best instance is the third now.
  const finder = t.open()
  assert.equal(await finder.queue(name).find(), t.names[0])
  await finder.queue(name).attach()
  const noted = async () => (await t.servers[2]?.call('KEYS', '*')) as string[]
  await until(async () => (await noted()).length > 0, { what: 'the note' })
  await t.servers[0]?.kill()
  const later = t.open({ unavailableAfter: 1_000 })
  assert.equal(((await rejectionOf(later.queue(name).attach())) as { code?: string }).code, 'E_UNAVAILABLE')
  await before.disconnect({ grace: 0 })
  await finder.disconnect({ grace: 0 })
  // Without persistence the queue is gone, and all say so.
  await t.servers[0]?.restart()
  await until(() => later.isOnline(t.names[0]), { what: 'the first instance' })
  const queue = later.queue(name)
  await until(() => queue.attach().then(() => true), { what: 'the queue', timeout: 10_000 })
  assert.equal(await queue.find(), t.names[2])
})

test('two instances, one is down - new names of the other one can be made', async () => {
  await using t = await busServers(2)
  const [lostName = ''] = t.names
  await t.servers[0]?.kill()
  const bus = t.open({ unavailableAfter: 1_000 })
  const made = await attachAll(bus, NAMES.slice(0, 40))
  for (const [name, queue] of made) {
    const isLost = bestOf(name, t.names)[0] === lostName
    assert.equal(queue instanceof Error, isLost, `${name}: ${queue}`)
  }
})
