import type { PushWorkerOptions } from '../gateway/index.ts'
import { shownValue } from '../kernel/options.ts'
import { UsageError } from './failure.ts'
import { duration, integer, plain, type Row, truth, words } from './values.ts'

/** The settings of push workers. */
export interface PushSettings {
  push: readonly PushTarget[] | undefined
  pushSecret: readonly PushSecret[] | undefined
  pushSecretFile: string | undefined
  /** Ms. */
  pushTimeout: number | undefined
  pushAttempts: number | undefined
  pushConcurrency: number | undefined
  pushAllowInternal: boolean | undefined
}

/** A queue, and the URL that its jobs are posted to. */
export interface PushTarget {
  readonly queue: string
  readonly url: string
}

/** A secret that signs the jobs of a queue. */
export interface PushSecret {
  /** Undefined: of all queues. */
  readonly queue: string | undefined
  readonly secret: string
}

type PushTable = { readonly [Name in keyof PushSettings]: Row<Exclude<PushSettings[Name], undefined>> }

export const PUSH_SETTINGS: PushTable = {
  push: {
    value: 'QUEUE=URL',
    description: 'posts the jobs of a queue to a URL; repeatable',
    expected: 'QUEUE=URL, with the name of a queue as in a path and an http: or https: URL',
    parse: (...texts) => all(texts.flatMap(words).map(targetOf)),
    isList: true,
    isSecret: true,
  },
  pushSecret: {
    value: '[QUEUE=]SECRET',
    description:
      'signs what is posted, as Standard Webhooks: whsec_ and base64; of one queue or of all; repeatable',
    expected: '[QUEUE=]SECRET, with a secret as whsec_ and base64 of 24 to 64 bytes',
    parse: (...texts) => all(texts.flatMap(words).map(secretOf)),
    isList: true,
    isSecret: true,
  },
  pushSecretFile: {
    value: 'FILE',
    description: 'a file with one [QUEUE=]SECRET on each line; added to those of --push-secret',
    expected: 'the path of a file',
    parse: plain,
  },
  pushTimeout: {
    value: 'TIME',
    description: 'the longest duration of a request: seconds, or as 500ms; 30s by default',
    expected: 'a time as 10, 10s or 500ms, up to a day',
    parse: (text) => duration(text) || undefined,
  },
  pushAttempts: {
    value: 'NUMBER',
    description: 'attempts of the jobs that do not set it themselves; 5 by default',
    expected: 'a whole number from 1 to 1000000',
    parse: (text) => integer(text, 1_000_000) || undefined,
  },
  pushConcurrency: {
    value: 'NUMBER',
    description: 'requests at once for each queue; 10 by default',
    expected: 'a whole number from 1 to 1000',
    parse: (text) => integer(text, 1_000) || undefined,
  },
  pushAllowInternal: {
    value: 'BOOLEAN',
    description: 'whether addresses of internal networks and of this machine are allowed; false by default',
    expected: 'true or false',
    parse: truth,
  },
}

/** The push workers of the gateway. @throws UsageError */
export function pushesOf(settings: PushSettings): PushWorkerOptions[] {
  const {
    push = [],
    pushSecret = [],
    pushTimeout,
    pushAttempts,
    pushConcurrency,
    pushAllowInternal,
  } = settings
  const lost = pushSecret.find(
    ({ queue }) => queue !== undefined && !push.some((each) => each.queue === queue),
  )
  if (lost)
    throw new UsageError(
      `There is a secret for ${shownValue(lost.queue)}, whose jobs are not pushed: give it by --push`,
    )
  return push.map(({ queue, url }) => {
    const secrets = pushSecret.filter((each) => each.queue === queue || each.queue === undefined)
    return {
      ...{ queue, url },
      ...(secrets.length > 0 && { secret: secrets.map(({ secret }) => secret) }),
      ...(pushTimeout !== undefined && { timeout: pushTimeout }),
      ...(pushAttempts !== undefined && { attempts: pushAttempts }),
      ...(pushConcurrency !== undefined && { concurrency: pushConcurrency }),
      ...(pushAllowInternal !== undefined && { allowInternal: pushAllowInternal }),
    }
  })
}

/** Undefined if one of the values is. */
function all<Value>(values: readonly (Value | undefined)[]): Value[] | undefined {
  const valid = values.filter((value) => value !== undefined)
  return valid.length === values.length ? valid : undefined
}

function targetOf(text: string): PushTarget | undefined {
  const end = text.indexOf('=')
  const queue = nameOf(text.slice(0, end))
  const url = text.slice(end + 1)
  return end > 0 && queue !== undefined && /^https?:/i.test(url) && URL.canParse(url)
    ? { queue, url }
    : undefined
}

function secretOf(text: string): PushSecret | undefined {
  const start = text.startsWith('whsec_') ? 0 : text.indexOf('=whsec_') + 1
  const secret = text.slice(start)
  const queue = start === 0 ? undefined : nameOf(text.slice(0, start - 1))
  if (!/^whsec_[A-Za-z0-9+/]{32,88}={0,2}$/.test(secret)) return undefined
  return start > 0 && !queue ? undefined : { queue, secret }
}

/** The name of a queue in percent-encoding. */
function nameOf(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}
