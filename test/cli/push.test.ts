import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { certificateFor } from '../support/certificate.ts'
import { Cli, fileOf } from '../support/cli.ts'
import { ROOT } from '../support/packed.ts'
import { answer, assertSigned, PushReceiver, SECRET } from '../support/receiver.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const OTHER_SECRET = `whsec_${Buffer.alloc(32, 5).toString('base64')}`

test('cli push - the receiver in Python of the guide accepts what is signed with its secret, and nothing else', async () => {
  await using receiver = Cli.run('python3', [join(ROOT, 'examples/receiver.py'), '0'], { SECRET })
  const said = await until(() => /port (\d+)\n/.exec(receiver.output), { what: 'its port', timeout: 15_000 })
  const url = `http://127.0.0.1:${said[1]}/`
  const secretFile = await fileOf('secrets', `jobs=${OTHER_SECRET}\njobs=${SECRET}\nothers=${OTHER_SECRET}\n`)
  await using cli = await Cli.serve([
    ...['--push', `jobs=${url}`, '--push', `others=${url}`, '--push-secret-file', secretFile],
    ...['--push-allow-internal', 'true'],
  ])
  const post = async (queue: string, body: string) => {
    const response = await fetch(`${cli.url}/q/${queue}?wait=30`, { method: 'POST', body })
    return { status: response.status, text: await response.text() }
  }
  assert.deepEqual(await post('jobs', '12'), { status: 200, text: '144' })
  const failed = await post('jobs', '"é"')
  assert.equal(failed.status, 500)
  assert.match(failed.text, /answered: 422.*not a whole number/)
  assert.match((await post('others', '12')).text, /answered: 401.*wrong signature/)
})

test('cli push - a receiver at https: is called if its certificate is trusted, for its own name', async () => {
  const [trusted, other] = await Promise.all([certificateFor('localhost'), certificateFor('elsewhere')])
  await using receiver = await PushReceiver.start(answer(200, '"by TLS"'), '127.0.0.1', trusted)
  await using misnamed = await PushReceiver.start(answer(200), '127.0.0.1', other)
  const serve = (url: string, certificate: string | undefined) => {
    const args = ['--push', `jobs=${url}`, '--push-secret', SECRET, '--push-allow-internal', 'true']
    return Cli.serve([...args, '--push-attempts', '1'], { NODE_EXTRA_CA_CERTS: certificate })
  }
  await using trusting = await serve(receiver.url, trusted.file)
  assert.deepEqual((await trusting.post(1)).text, '"by TLS"')
  assertSigned(await receiver.receives(1), SECRET)
  await using distrusting = await serve(receiver.url, undefined)
  assert.match((await distrusting.post(1)).text, /cannot be reached: DEPTH_ZERO_SELF_SIGNED_CERT/)
  await using mistaken = await serve(misnamed.url, other.file)
  assert.match((await mistaken.post(1)).text, /cannot be reached: ERR_TLS_CERT_ALTNAME_INVALID/)
  assert.deepEqual([receiver.received.length, misnamed.received.length], [1, 0])
})

test('cli push - a gateway that is killed in the middle: another one posts the job again', async () => {
  await using t = await setup({ port: 'free' })
  await using receiver = await PushReceiver.start((response, _, index) => {
    if (index > 0) answer(200, '"again"')(response)
  })
  const args = ['--redis', `redis://127.0.0.1:${t.server.port}`, '--push-allow-internal', 'true']
  const pushing = [...args, '--push', `jobs=${receiver.url}`, '--push-secret', SECRET]
  await using first = await Cli.serve(pushing)
  await using poster = await Cli.serve(args)
  const posted = poster.post(1)
  await receiver.receives(1)
  await first.kill()
  await until(() => receiver.left === 1, { what: 'the request to end', timeout: 15_000 })
  await using _ = await Cli.serve(pushing)
  assert.deepEqual((await posted).text, '"again"')
  const [one, two, ...rest] = receiver.received
  assert.ok(one && two && rest.length === 0)
  assertSigned(two, SECRET)
  // The same job, in an attempt with a higher fence. The lost worker does not count as a failed attempt.
  const of = ({ headers }: typeof one) => [headers['webhook-id'], headers['x-job-attempt']]
  assert.deepEqual(of(one), of(two))
  assert.ok(Number(two.headers['x-job-fence']) > Number(one.headers['x-job-fence']))
})

test('cli push - SIGTERM: the request is answered within the grace, and the process ends', async () => {
  let finish = () => {}
  await using receiver = await PushReceiver.start((response) => {
    finish = () => answer(200, '"done"')(response)
  })
  await using cli = await Cli.serve([
    '--push',
    `jobs=${receiver.url}`,
    '--push-allow-internal',
    'true',
    '--grace',
    '20',
  ])
  const posted = cli.post(1)
  await receiver.receives(1)
  cli.signal('SIGTERM')
  await cli.answers(503, '/readyz')
  finish()
  assert.deepEqual((await posted).text, '"done"')
  assert.equal(await cli.exits(), 0)
})

test('cli push - an internal address must be allowed, and no secret is printed', async () => {
  const push = 'jobs=http://hunter1:hunter2@127.0.0.1/hunter3'
  await using refused = await Cli.start(['serve', '--port', '0', '--push', push, '--push-secret', SECRET])
  const complaint = await refused.complaint(2)
  assert.match(complaint, /`push\[0\]\.url` is an internal address/)
  assert.doesNotMatch(complaint, /hunter|MfKQ/)
  await using cli = await Cli.serve([
    '--push',
    push,
    '--push-allow-internal',
    'true',
    '--push-secret',
    SECRET,
  ])
  assert.doesNotMatch(cli.output + cli.errors, /hunter|MfKQ/)
})
