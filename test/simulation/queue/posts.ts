import type { Post, PostReply } from '../../../src/queue/store/store.ts'
import { endingOf } from '../history.ts'
import { Random } from '../random.ts'
import type { QueueCall, QueueHistory } from './history.ts'
import type { QueuePort } from './port.ts'
import { short } from './recorder.ts'
import type { QueueServer } from './server.ts'
import type { QueueActor, QueueWorld } from './world.ts'

/** Posts several jobs together. It has random numbers of its own, so that runs without posts stay as they are. */
export class PostDriver {
  readonly #world: QueueWorld
  readonly #random: Random

  constructor(world: QueueWorld, seed: number) {
    this.#world = world
    this.#random = new Random(seed ^ 0x706f7374)
  }

  /** Fraction of the calls of a run that are posts. */
  share(): number {
    return this.#random.pick([0, 0, 0.3])
  }

  /** Posts, or returns false. */
  act(actor: QueueActor): boolean {
    const { post } = this.#world.plan.mix
    if (post === 0 || !this.#random.chance(post)) return false
    void this.#post(actor)
    return true
  }

  async #post(actor: QueueActor): Promise<void> {
    const { history, scheduler, plan } = this.#world
    // Few keys, and posts of which each is a part of the next.
    const dedupe = this.#random.chance(0.7) ? `post ${this.#random.below(2)}` : false
    const jobs = Array.from({ length: 1 + this.#random.below(3) }, (_, n) => ({
      command: plan.commands[n % plan.commands.length] as string,
      payload: { n },
    }))
    const call: QueueCall = {
      ...{ no: history.jobCalls.length, process: actor.process.id, kind: 'enqueue', id: '', command: '' },
      ...{ nonce: undefined, generation: 0, single: false, conflict: true, isExclusive: false, keeps: true },
      ...{ begun: history.moment(), deadline: scheduler.now + plan.unavailableAfter, ended: undefined },
    }
    history.jobCalls.push(call)
    history.say(() => `p${call.process} posts ${jobs.length} jobs under ${dedupe} (#${call.no})`)
    try {
      const posted = await actor.queue.enqueueAll(jobs, { dedupe })
      const ids = posted.map(({ id }) => id)
      call.id = this.#random.pick(ids)
      if (!history.posts.some((one) => one.ids.join() === ids.join()))
        history.violate('S6', `#${call.no} has jobs of no post`)
      call.ended = { ...history.moment(), ending: { kind: 'value', identity: ids.map(short).join() } }
    } catch (error) {
      call.ended = { ...history.moment(), ending: endingOf(error) }
    }
    history.say(() => `p${call.process} has #${call.no}: ${JSON.stringify(call.ended?.ending)}`)
  }
}

/** The port, with the checks of posts: all of a post is there or nothing, and once. */
export function withPostChecks(port: QueuePort, history: QueueHistory, server: QueueServer): QueuePort {
  return {
    ...port,
    submitAll: async (post, within) => {
      const reply = await port.submitAll(post, within)
      history.say(() => `    post ${short(post.nonce)} of ${post.jobs.length} is ${JSON.stringify(reply)}`)
      check(post, reply, history, server)
      return reply
    },
  }
}

function check(post: Post, reply: PostReply, history: QueueHistory, server: QueueServer): void {
  const { key, digest, nonce, jobs } = post
  const known = history.posts.findLast((one) => one.key === key && !history.wipedSince(one.tick))
  const name = `the post ${short(nonce)}`
  if (reply.status === 'created') {
    if (known?.nonce === nonce) {
      if (reply.generation !== known.generation && !known.ids.some((id) => history.retried.has(id)))
        history.violate('S6', `${name} was submitted once, and created twice`)
      return
    }
    if (known) history.violate('S6', `${name} is created, and ${short(known.nonce)} is known under its key`)
    const there = jobs.filter(({ id }) => server.model.state.jobs.has(id)).length
    if (there < jobs.length) history.violate('Q1', `${name} is there in part: ${there} of ${jobs.length}`)
    const { generation } = reply
    const ids = jobs.map(({ id }) => id)
    history.posts.push({ ...history.moment(), key, digest, nonce, generation, ids })
    for (const id of ids)
      history.effects.set(`${nonce} ${id}`, [{ ...history.moment(), id, status: 'created', generation }])
    return
  }
  const isSame = reply.status === 'joined' && reply.nonce === known?.nonce
  if (!known || (known.digest === digest) !== isSame)
    history.violate('S6', `${name} is ${reply.status}, and ${known && short(known.nonce)} is known`)
  if (jobs.some(({ id }) => server.model.state.jobs.has(id)))
    history.violate('Q1', `${name} is refused, and there in part`)
}
