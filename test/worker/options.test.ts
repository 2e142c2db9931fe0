// Options are checked where a worker is created, and say what is wrong without telling a secret.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  HTTP_WORKER_DEFAULTS,
  HttpWorker,
  type HttpWorkerOptions,
  type JobContext,
} from '../../src/worker/index.ts'

const GOOD = { url: 'http://127.0.0.1:5000', queues: 'jobs', work: () => 1 }

/** Wrong options, and what the message says of each. */
const WRONG: Record<string, [options: Record<string, unknown>, message: RegExp]> = {
  'no url': [{ url: undefined }, /Expected `url`/],
  'an empty list of urls': [{ url: [] }, /Expected `url`/],
  'a url twice': [{ url: ['http://a', 'http://a'] }, /all different/],
  'a url of another scheme': [{ url: 'redis://localhost' }, /Expected `url`/],
  'a url with a password': [{ url: 'http://me:secret@host' }, /Expected `url`.*\*\*\*/s],
  'a url with a query': [{ url: 'http://host?token=secret' }, /Expected `url`/],
  'no queue': [{ queues: undefined }, /Expected `queues`/],
  'an empty name of a queue': [{ queues: [''] }, /Expected `queues`/],
  'a queue that is a step of a path': [{ queues: '..' }, /Expected `queues`/],
  'a queue with a control character': [{ queues: 'a\nb' }, /Expected `queues`/],
  'a queue with a lone surrogate': [{ queues: '\ud800' }, /Expected `queues`/],
  'a queue twice': [{ queues: ['a', 'a'] }, /all different/],
  'too long a name of a queue': [{ queues: 'x'.repeat(257) }, /Expected `queues`/],
  'another order': [{ order: 'random' }, /Expected `order` to be one of "turns", "priority"/],
  'no work': [{ work: undefined }, /Expected `work`/],
  'work that is no function': [{ work: 'x' }, /Expected `work` to be a function/],
  'fail that is no function': [{ fail: 1 }, /Expected `fail` to be a function/],
  'a command that is no text': [{ command: 1 }, /Expected `command`/],
  'no slot': [{ concurrency: 0 }, /Expected `concurrency`/],
  'too short a lease': [{ lease: 999 }, /Expected `lease` to be a number from 1000/],
  'a lease that is no number': [{ lease: Number.NaN }, /Expected `lease`/],
  'a negative wait': [{ wait: -1 }, /Expected `wait`/],
  'too short an interval': [{ interval: 10 }, /Expected `interval`/],
  'a token with a line end': [{ token: 'secret\r\nX: y' }, /Expected `token`/],
  'a worker id with a blank': [{ workerId: 'my worker' }, /Expected `workerId`/],
  'a signal that cannot be received': [{ stopOn: ['SIGKILL'] }, /Expected `stopOn`/],
  'an unknown signal': [{ stopOn: ['SIGNOTHING'] }, /Expected `stopOn`/],
  'a logger without methods': [{ logger: {} }, /Expected `logger.error`/],
  'an unknown level': [{ level: 'loud' }, /Expected `level`/],
  'a misspelt option': [{ concurency: 3 }, /did you mean `concurrency`\?/],
}

for (const [what, [options, message]] of Object.entries(WRONG)) {
  test(`http worker options - refuses ${what}`, () => {
    const given = { ...GOOD, ...options } as unknown as HttpWorkerOptions
    assert.throws(
      () => new HttpWorker(given),
      (error: Error) => {
        assert.ok(error instanceof TypeError)
        assert.match(error.message, message)
        assert.ok(!error.message.includes('secret'), error.message)
        return true
      },
    )
  })
}

test('http worker options - a subclass needs a method work, not a field', () => {
  class WithoutWork extends HttpWorker {}
  class WithField extends HttpWorker {
    override work = () => 1
  }
  const { work: _, ...options } = GOOD
  for (const Class of [WithoutWork, WithField])
    assert.throws(
      () => new Class(options),
      /Expected `work` to be a function, among the options or as a method/,
    )
  class WithMethod extends HttpWorker<string, number> {
    override work(job: string, { attempt }: JobContext): number {
      return job.length + attempt
    }
  }
  assert.ok(new WithMethod(options).id.startsWith('WithMethod_'))
})

test('http worker options - the defaults are those that the documents state', () => {
  assert.deepEqual(HTTP_WORKER_DEFAULTS, {
    ...{ order: 'turns', command: 'job', concurrency: 1, lease: 60_000, wait: 20_000, interval: 1_000 },
    ...{ timeout: 10_000, grace: 30_000, stopOn: [], maxJob: 67_108_864, level: 'info' },
  })
})

test('http worker options - a worker that is made and not started does nothing', () => {
  const before = process.listenerCount('SIGTERM')
  new HttpWorker({ ...GOOD, stopOn: ['SIGTERM'] })
  assert.equal(process.listenerCount('SIGTERM'), before)
})
