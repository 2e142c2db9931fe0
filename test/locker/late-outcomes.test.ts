import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import pDefer from 'p-defer'
import { Locker, type LockerOptions, MemoryStore } from '../../src/index.ts'
import { TagGuard } from '../../src/locker/cache/tag-guard.ts'
import type { ClaimReply } from '../../src/locker/store/store.ts'
import { ManualClock, settled } from '../support/manual-clock.ts'
import { soon } from '../support/wait.ts'

/** Replies and messages of a store that do not arrive while this is set. */
interface Withheld {
  messages: boolean
  settlements: Promise<void> | undefined
  tagVersions: Promise<void> | undefined
}

/** A store whose replies and messages come late or never. Renewals get no reply, so that leases run out. */
class LateStore extends MemoryStore {
  readonly withheld: Withheld

  constructor(clock: ManualClock) {
    const withheld: Withheld = { messages: false, settlements: undefined, tagVersions: undefined }
    super({ clock, deliver: (message) => void (withheld.messages || queueMicrotask(message)) })
    this.withheld = withheld
  }

  override connect(): ReturnType<MemoryStore['connect']> {
    const { withheld } = this
    const client = super.connect()
    const { settle, tagVersions } = client
    client.renew = () => new Promise(() => {})
    client.settle = async (...args) => {
      const reply = await settle.apply(client, args)
      await withheld.settlements
      return reply
    }
    client.tagVersions = async (...args) => {
      const versions = await tagVersions.apply(client, args)
      await withheld.tagVersions
      return versions
    }
    return client
  }
}

const LEASE = 1000
/** In this process a lease counts as lost before it has expired in the store. */
const LOST_AFTER = 950
const TAGGED = { tags: ['reports'] }

function scene(options: LockerOptions) {
  const clock = new ManualClock()
  const store = new LateStore(clock)
  const open = (given: LockerOptions) =>
    new Locker({ store, lease: LEASE, unavailableAfter: 1e6, timeout: 1e6, ...given })
  const [one, other] = [open(options), open({ cache: false })]
  return {
    clock,
    withheld: store.withheld,
    one,
    other,
    async [Symbol.asyncDispose]() {
      Object.assign(store.withheld, { messages: false, settlements: undefined })
      await Promise.all([one, other].map((locker) => locker.close({ grace: 0 })))
    },
  }
}

describe('late outcomes', () => {
  for (const first of ['the message', 'the reply'] as const) {
    test(`S4 late outcomes - a result whose tag was invalidated before its lease was lost is not cached, ${first} first`, async () => {
      await using s = scene({})
      const end = pDefer<string>()
      const old = s.one.run('k', () => end.promise, TAGGED)
      await settled()
      await s.other.invalidateTags('reports')
      await settled()
      // The next claim is sent, and its reply is not there when the work ends.
      const reply = pDefer<void>()
      s.withheld.tagVersions = reply.promise
      await s.clock.pass(LOST_AFTER)
      assert.equal(s.one.stats().lost, 1)
      if (first === 'the message') s.withheld.settlements = reply.promise
      else s.withheld.messages = true
      end.resolve('old')
      assert.equal(await old, 'old')
      s.withheld.tagVersions = undefined
      reply.resolve()
      await settled()
      assert.equal(await s.one.run('k', () => 'new', TAGGED), 'new')
    })
  }

  test('S4 late outcomes - a call after the invalidation of a tag receives no result of a lost lease', async () => {
    await using s = scene({ cache: false })
    const end = pDefer<string>()
    const results = [end.promise, 'new']
    const before = s.one.run('k', () => results.shift(), TAGGED)
    await settled()
    s.withheld.messages = true
    await s.other.invalidateTags('reports')
    const after = s.one.run('k', () => 'new', TAGGED)
    // Claims again, and parks behind its own lease.
    await s.clock.pass(LOST_AFTER)
    assert.equal(s.one.stats().lost, 1)
    end.resolve('old')
    await settled()
    await s.clock.pass(2 * LEASE)
    assert.deepEqual([await before, await after], ['new', 'new'])
  })

  test('S4 late outcomes - an invalidation of the key says nothing of a tag that was invalidated before', async () => {
    await using s = scene({ cache: false })
    const end = pDefer<string>()
    const held = s.other.run('k', () => end.promise, TAGGED)
    await settled()
    const before = s.one.run('k', () => 'new', TAGGED)
    await settled()
    assert.equal(s.one.stats().parks, 1)
    s.withheld.messages = true
    await s.other.invalidateTags('reports')
    const after = s.one.run('k', () => 'new', TAGGED)
    await s.one.invalidate('k')
    s.withheld.messages = false
    end.resolve('old')
    assert.deepEqual([await held, await before], ['old', 'old'])
    assert.equal(await soon(after), 'new')
  })

  test('S4 late outcomes - versions of tags that come late do not stand for those of a later claim', async () => {
    const reads = [pDefer<number[]>(), pDefer<number[]>()]
    const pending = reads.map(({ promise }) => promise)
    const store = { tagVersions: () => pending.shift() }
    const guard = new TagGuard({
      tags: ['t'],
      ttl: 0,
      keepStale: 0,
      locker: { store, limits: { within: 1000 } } as never,
    })
    const granted: ClaimReply = { status: 'granted', fence: 1, takeover: false }
    guard.onSent()
    const first = guard.check(granted)
    await settled()
    guard.onSent()
    reads[0]?.resolve([1])
    await first
    assert.ok(guard.isReading)
    reads[1]?.resolve([2])
    await guard.check(granted)
    assert.deepEqual([...guard.versions], [['t', 2]])
  })
})
