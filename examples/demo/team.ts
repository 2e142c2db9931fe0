import { type ChildProcess, fork } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { Stop } from './stop.ts'

/** What a member is told. */
export type Order = { kind: 'ask'; folder: string; key: string; callers: number } | { kind: 'go on' }

/** What a member tells. */
export type News =
  | { kind: 'ready' }
  | { kind: 'begun'; fence: number }
  /** It waits there until it has been told to go on. */
  | { kind: 'half-way'; done: number; total: number }
  | { kind: 'finished'; ms: number }
  /** What its callers received: the digest of the report each, or what the failure was. */
  | { kind: 'received'; reports: string[] }
  | { kind: 'failed'; failures: string[] }

type NewsFrom<K extends News['kind']> = Extract<News, { kind: K }> & { from: ChildProcess }

/** The longest that is waited for any news, ms. */
const PATIENCE = 30_000

/** Several processes that do as they are told, and end with this one however that ends. */
export class Team implements AsyncDisposable {
  readonly #members = new Set<ChildProcess>()
  /** What nobody has taken yet. */
  readonly #news: (News & { from: ChildProcess })[] = []
  /** How often each kind was heard. */
  readonly #heard = new Map<News['kind'], number>()
  readonly #bell = new EventEmitter()
  #lost: ChildProcess | undefined

  constructor(size: number, env: Record<string, string>) {
    for (let i = 0; i < size; i++) this.#start(env)
  }

  get size(): number {
    return this.#members.size
  }

  #start(env: Record<string, string>): void {
    const file = fileURLToPath(new URL('member.ts', import.meta.url))
    const member = fork(file, { env: { ...process.env, ...env } })
    this.#members.add(member)
    member.on('message', (news: News) => {
      this.#news.push({ ...news, from: member })
      this.#heard.set(news.kind, this.heard(news.kind) + 1)
      this.#bell.emit('ring')
    })
    member.on('exit', () => {
      if (this.#members.delete(member)) this.#lost = member
      this.#bell.emit('ring')
    })
  }

  /** How often a kind was heard, from anyone. */
  heard(kind: News['kind']): number {
    return this.#heard.get(kind) ?? 0
  }

  /** The next news of a kind, unless somebody failed. */
  async next<K extends News['kind']>(kind: K): Promise<NewsFrom<K>> {
    const signal = AbortSignal.timeout(PATIENCE)
    for (;;) {
      const index = this.#news.findIndex((news) => news.kind === kind)
      const [news] = index < 0 ? [] : this.#news.splice(index, 1)
      if (news) return news as NewsFrom<K>
      for (const news of this.#news) {
        if (news.kind === 'failed') throw new Stop(`there is no report: ${news.failures[0]}`)
      }
      if (this.#lost) throw new Stop(`process ${this.#lost.pid} has ended although nobody killed it`)
      await once(this.#bell, 'ring', { signal }).catch(() => {
        throw new Stop(`no process said ${kind} within ${PATIENCE} ms`)
      })
    }
  }

  /** One of these news from every member. */
  async fromAll<K extends News['kind']>(kind: K): Promise<NewsFrom<K>[]> {
    const news: NewsFrom<K>[] = []
    while (news.length < this.size) news.push(await this.next(kind))
    return news
  }

  tellAll(order: Order): void {
    // One that has just ended is missed by whoever waits for its news.
    for (const member of this.#members) member.send(order, () => {})
  }

  /** Returns when it is gone. */
  async kill(member: ChildProcess): Promise<void> {
    this.#members.delete(member)
    const exit = once(member, 'exit')
    member.kill('SIGKILL')
    await exit
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const members = [...this.#members]
    this.#members.clear()
    await Promise.all(members.map((member) => dismiss(member)))
  }
}

/** A member ends when nobody is there any more to tell it anything. */
async function dismiss(member: ChildProcess): Promise<void> {
  if (member.exitCode !== null || member.signalCode !== null) return
  const exit = once(member, 'exit')
  const tooLong = setTimeout(() => member.kill('SIGKILL'), 3_000)
  if (member.connected) member.disconnect()
  await exit
  clearTimeout(tooLong)
}
