// Users whose ACL forbids what services need: they are told what is missing.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { UnavailableError } from '../../src/errors.ts'
import { Services } from '../../src/services/index.ts'
import { loadsOf } from '../support/services-scene.ts'
import { setup } from '../support/setup.ts'
import { rejectionOf, timed, until } from '../support/wait.ts'

const ALL = ['reset', 'on', '>secret', '~*', '+@all']

const CASES: [name: string, rules: string[], missing: RegExp][] = [
  ['PUBLISH', ['&*', '-publish'], /PUBLISH to soloflight:1:inbox:\*: /],
  ['SUBSCRIBE', ['&*', '-subscribe'], /SUBSCRIBE to soloflight:1:inbox:\* and soloflight:1:all: NOPERM/],
  ['all channels', ['resetchannels', '&none'], /PUBLISH to soloflight:1:inbox:\*: /],
  ['the channel of all', ['resetchannels', '&soloflight:1:inbox:*'], /PUBLISH to soloflight:1:all: /],
]

for (const [name, rules, missing] of CASES) {
  test(`ACL - without ${name}, register says what is missing, and nothing stays registered`, async () => {
    await using t = await setup()
    const allow = (...given: string[]) => t.server.call('ACL', 'SETUSER', 'user', ...ALL, ...given)
    await allow(...rules)
    await using services = new Services({ redis: { ...t.redis, username: 'user', password: 'secret' } })
    const { error, ms } = await timed(services.register('sums'))
    assert.ok(error instanceof UnavailableError && missing.test(error.message), `${error}`)
    assert.ok(ms < 4_000, `${ms}`)
    assert.equal((await loadsOf(t.server, 'sums')).size, 0)
    await using caller = new Services({ redis: t.redis })
    await assert.rejects(caller.require('sums').emit('add', 1, 2), { code: 'E_NO_SERVICE' })
    await allow('&*')
    const service = await until(() => services.register('sums').catch(() => undefined), {
      what: 'the permission',
    })
    service.on('add', (a: number, b: number) => a + b)
    assert.equal(await caller.require('sums').emit('add', 1, 2), 3)
  })
}

test('ACL - V1 a caller without SUBSCRIBE would get no reply: its calls fail at once, and do not run', async () => {
  await using t = await setup()
  await using server = new Services({ redis: t.redis })
  const lines: string[] = []
  ;(await server.register('log')).on('line', (line: string) => void lines.push(line))
  await t.server.call('ACL', 'SETUSER', 'user', ...ALL, '&*', '-subscribe')
  await using caller = new Services({ redis: { ...t.redis, username: 'user', password: 'secret' } })
  const log = caller.require('log')
  const refused = async () => {
    const error = await rejectionOf(log.with({ timeout: 100 }).emit('line', 'early'))
    return error instanceof UnavailableError ? error : undefined
  }
  await until(refused, { what: 'Redis to refuse the subscription' })
  lines.length = 0
  const calls = [log.emit('line', 'a'), log.pemit(3, 'line', 'a'), log.stream('line', 'a').next()]
  for (const call of calls)
    await assert.rejects(call, { code: 'E_UNAVAILABLE', ran: 'no', message: /SUBSCRIBE/ })
  assert.throws(() => log.broadcast('line', 'a'), { code: 'E_UNAVAILABLE', ran: 'no' })
  await log.notify('line', 'notified')
  await until(() => lines.length > 0, { what: 'the line' })
  assert.deepEqual(lines, ['notified'])
})
