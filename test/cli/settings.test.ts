import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pushesOf } from '../../src/cli/push-settings.ts'
import { flagOf, type GivenSettings, NAMES, resolveSettings, variableOf } from '../../src/cli/settings.ts'
import { Cli, fileOf } from '../support/cli.ts'
import { freePort } from '../support/ports.ts'
import { SECRET } from '../support/receiver.ts'

/** What flags give. */
function given(values: Record<string, string | string[]>): GivenSettings {
  const entries = Object.entries(values).map(([name, texts]) => [
    name,
    { texts: [texts].flat(), source: flagOf(name) },
  ])
  return Object.fromEntries(entries)
}

const DEFAULTS = {
  redis: undefined,
  bus: undefined,
  port: 5000,
  host: '127.0.0.1',
  prefix: undefined,
  token: [],
  tokenFile: undefined,
  allowHost: undefined,
  basePath: undefined,
  maxBody: undefined,
  drain: 0,
  grace: 5_000,
  maxWait: undefined,
  maxStreams: undefined,
  maxSockets: undefined,
  heartbeat: undefined,
  attempts: undefined,
  dashboard: true,
  push: undefined,
  pushSecret: undefined,
  pushSecretFile: undefined,
  pushTimeout: undefined,
  pushAttempts: undefined,
  pushConcurrency: undefined,
  pushAllowInternal: undefined,
  audit: undefined,
}

test('cli settings - without any there are the defaults', async () => {
  assert.deepEqual(await resolveSettings({}, undefined), DEFAULTS)
  assert.deepEqual(Object.keys(DEFAULTS), NAMES)
})

test('cli settings - flags and variables are named after the settings', () => {
  assert.deepEqual(
    NAMES.map(flagOf).filter((flag) => flag.length > 8 && !flag.startsWith('--push')),
    [
      ...['--token-file', '--allow-host', '--base-path', '--max-body', '--max-wait'],
      ...['--max-streams', '--max-sockets', '--heartbeat', '--attempts', '--dashboard'],
    ],
  )
  assert.deepEqual(['redis', 'maxBody'].map(variableOf), ['SOLOFLIGHT_REDIS', 'SOLOFLIGHT_MAX_BODY'])
})

test('cli settings - all are given by a file, as texts or numbers', async () => {
  const tokenFile = await fileOf('tokens', '# workers\nwork,read=w1\n\n  admin=a1  \n')
  const content = {
    redis: 'redis://localhost:6379',
    bus: ['redis://one:6379', 'redis://two:6379'],
    port: 0,
    host: '::1',
    prefix: 'shop',
    token: ['read=r1', 'submit,read=s1'],
    tokenFile,
    allowHost: 'jobs.example',
    basePath: '/jobs',
    maxBody: '2MiB',
    drain: '10s',
    grace: 2.5,
    maxWait: 20,
    maxStreams: 5,
    maxSockets: '6',
    heartbeat: '2s',
    attempts: 3,
    dashboard: false,
    push: 'jobs=https://example.com/',
    pushSecret: SECRET,
    pushSecretFile: await fileOf('secrets', SECRET),
    pushTimeout: 20,
    pushAttempts: 3,
    pushConcurrency: 4,
    pushAllowInternal: false,
    audit: 'changes',
  }
  assert.deepEqual(await resolveSettings({}, await fileOf('config.json', content)), {
    ...content,
    token: [
      { token: 'r1', scopes: ['read'] },
      { token: 's1', scopes: ['submit', 'read'] },
      { token: 'w1', scopes: ['work', 'read'] },
      { token: 'a1', scopes: ['admin'] },
    ],
    allowHost: ['jobs.example'],
    maxBody: 2 * 1024 * 1024,
    drain: 10_000,
    grace: 2500,
    push: [{ queue: 'jobs', url: 'https://example.com/' }],
    pushSecret: [SECRET, SECRET].map((secret) => ({ queue: undefined, secret })),
    maxWait: 20_000,
    maxSockets: 6,
    heartbeat: 2_000,
    pushTimeout: 20_000,
  })
})

test('cli settings - what flags or variables give wins over the file, list by list', async () => {
  const file = await fileOf('config.json', { port: 1, prefix: 'file', token: ['read=one', 'read=two'] })
  const flags = given({ port: '2', token: 'submit=three' })
  const { port, prefix, token } = await resolveSettings(flags, file)
  assert.deepEqual([port, prefix, token], [2, 'file', [{ token: 'three', scopes: ['submit'] }]])
})

for (const [name, text, expected] of [
  ['drain', '250ms', 250],
  ['grace', '0', 0],
  ['grace', '30', 30_000],
  ['grace', '30s', 30_000],
  ['grace', '500ms', 500],
  ['grace', '1.5', 1500],
  ['grace', '86400', 86_400_000],
  ['maxBody', '1', 1],
  ['maxBody', '512KiB', 524_288],
  ['maxBody', '1mib', 1_048_576],
  ['port', '65535', 65_535],
  ['basePath', '/a/b', '/a/b'],
  ['allowHost', ['a.example B.example', '[::1] ::2'], ['a.example', 'b.example', '[::1]', '[::2]']],
  ['heartbeat', '100ms', 100],
  ['attempts', '1000000', 1_000_000],
  ['pushTimeout', '5', 5_000],
  ['pushAttempts', '7', 7],
  ['pushConcurrency', '1000', 1_000],
  ['pushAllowInternal', 'true', true],
  ['pushAllowInternal', 'false', false],
  [
    'push',
    ['a%20b%3D=https://x.example/y?z=1 c=http://[::1]:80/', 'd=HTTPS://x'],
    [
      { queue: 'a b=', url: 'https://x.example/y?z=1' },
      { queue: 'c', url: 'http://[::1]:80/' },
      { queue: 'd', url: 'HTTPS://x' },
    ],
  ],
  [
    'pushSecret',
    [`${SECRET} a%3D=${SECRET}`],
    [
      { queue: undefined, secret: SECRET },
      { queue: 'a=', secret: SECRET },
    ],
  ],
  ['token', 'admin=abc.DEF-_~+/==', [{ token: 'abc.DEF-_~+/==', scopes: ['admin'] }]],
] as const) {
  test(`cli settings - ${flagOf(name)} ${text} is ${JSON.stringify(expected)}`, async () => {
    const settings = await resolveSettings(given({ [name]: text as string | string[] }), undefined)
    assert.deepEqual(settings[name], expected)
  })
}

for (const [name, ...texts] of [
  ['port', '-1', '65536', '1e3', '80.5', 'abc', ' 80', '0x50'],
  ['drain', '-1', '1m', '86401'],
  ['grace', '-1', 'Infinity', '1m', '86401', '1e3', '9'.repeat(400)],
  ['maxBody', '0', '-1', '1.5MiB', '1GiB', '1e9'],
  ['host', 'http://localhost', 'a b', 'a/b'],
  ['basePath', 'jobs', '/', '/a/', '//a', '/a?b', '/a b', '/%2e'],
  ['maxStreams', '0', '-1', '1000001', '1k'],
  ['maxSockets', '0', '1.5', '1e3'],
  ['heartbeat', '0', '99ms', '86401', '1m'],
  ['attempts', '0', '1000001', 'Infinity'],
  ['pushTimeout', '0', '-1', '86401', '1m'],
  ['pushAttempts', '0', '1.5', '1000001', 'Infinity'],
  ['pushConcurrency', '0', '1001'],
  ['pushAllowInternal', 'yes', '1', 'TRUE', 'constructor'],
  ['allowHost', 'https://a.example', 'a/b', '*', 'a:80', '1.2.3.4.5', '[a]'],
] as const) {
  test(`cli settings - ${flagOf(name)} refuses ${texts.map((text) => text.slice(0, 20)).join(', ')}`, async () => {
    for (const text of texts) {
      await assert.rejects(resolveSettings(given({ [name]: text }), undefined), (error: Error) => {
        assert.match(error.message, new RegExp(`^Expected ${flagOf(name)} to be .*, got \``))
        return error.name === 'UsageError'
      })
    }
  })
}

test('cli settings - a wrong token is refused, and no part of it is shown', async () => {
  const secrets = ['hunter2', 'raed=hunter2', 'hunter2=', 'read=hun ter2', 'read=hunter2=x', 'READ=hunter2']
  for (const secret of [...secrets, 'read,=hunter2', '=hunter2', 'read=hunter2é', 'read=hunter2\u0000']) {
    for (const source of [given({ token: secret }), given({ tokenFile: await fileOf('tokens', secret) })]) {
      await assert.rejects(resolveSettings(source, undefined), ({ name, message }: Error) => {
        assert.doesNotMatch(message, /hun|ter2|raed/)
        return name === 'UsageError' && /SCOPES=TOKEN/.test(message)
      })
    }
  }
  const twice = given({ token: ['read=hunter2', 'admin=hunter2'] })
  await assert.rejects(resolveSettings(twice, undefined), /^UsageError: The same token is given twice/)
})

test('cli settings - a wrong push or secret is refused, and no part of it is shown', async () => {
  const cases = {
    push: [
      'hunter2',
      '=https://hunter2',
      'q=hunter2',
      'q=ftp://hunter2',
      'q=https://',
      '%zz=https://hunter2',
    ],
    pushSecret: ['hunter2', 'whsec_hunter2', `=${SECRET}`, `q${SECRET}`, `%zz=${SECRET}`, `q=${SECRET}=x`],
  }
  for (const [name, texts] of Object.entries(cases))
    for (const text of texts)
      await assert.rejects(
        resolveSettings(given({ [name]: text }), undefined),
        ({ name, message }: Error) => {
          assert.doesNotMatch(message, /hunter2|whsec_\w{6}/)
          return name === 'UsageError' && /QUEUE=/.test(message)
        },
      )
})

test('cli settings - push workers follow from their settings; secrets of a queue come first to last', async () => {
  const [one, two, all] = [1, 2, 3].map((byte) => `whsec_${Buffer.alloc(32, byte).toString('base64')}`)
  const file = await fileOf('secrets', `# of all\n${all}\nb=${two}\n`)
  const flags = given({
    push: ['a=https://a.example/', 'b=https://b.example/'],
    ...{ pushSecret: `b=${one}`, pushSecretFile: file, pushTimeout: '5', pushAttempts: '2' },
    ...{ pushConcurrency: '3', pushAllowInternal: 'true' },
  })
  const common = { timeout: 5_000, attempts: 2, concurrency: 3, allowInternal: true }
  assert.deepEqual(pushesOf(await resolveSettings(flags, undefined)), [
    { queue: 'a', url: 'https://a.example/', secret: [all], ...common },
    { queue: 'b', url: 'https://b.example/', secret: [one, all, two], ...common },
  ])
  const lost = await resolveSettings(
    given({ push: 'a=https://a.example/', pushSecret: `b=${one}` }),
    undefined,
  )
  assert.throws(() => pushesOf(lost), /^UsageError: There is a secret for `b`, whose jobs are not pushed/)
  assert.deepEqual(pushesOf(await resolveSettings({}, undefined)), [])
  const config = await fileOf('config.json', { push: ['a=https://a.example/'], pushAllowInternal: true })
  assert.deepEqual(pushesOf(await resolveSettings({}, config)), [
    { queue: 'a', url: 'https://a.example/', allowInternal: true },
  ])
})

test('cli settings - a setting that is empty is refused: no service is open, or forgets, because a variable is', async () => {
  for (const name of NAMES)
    await assert.rejects(
      resolveSettings(given({ [name]: '' }), undefined),
      new RegExp(`${flagOf(name)} is empty`),
    )
  const empty = given({ tokenFile: await fileOf('tokens', '# none yet\n') })
  await assert.rejects(resolveSettings(empty, undefined), /The token file .* is empty/)
  const none = await fileOf('config.json', { token: [] })
  await assert.rejects(resolveSettings({}, none), /`token` in .* is empty/)
})

for (const [content, expected] of [
  ['{ "prot": 80 }', /Unknown option `prot`.*; did you mean `port`\?/],
  ['{ "__proto__": 80 }', /Unknown option `__proto__`/],
  ['{ "max-body": 80 }', /Unknown option `max-body`.*; did you mean `maxBody`\?/],
  ['{ "config": "other.json" }', /Unknown option `config`/],
  ['{ "redis": "redis://:hunter2@a", }', /^The configuration `\S+` is not valid JSON$/],
  ['hunter2', /^The configuration `\S+` is not valid JSON$/],
  ['[]', /is not an object/],
  ['null', /is not an object/],
  ['{ "port": [80] }', /^Expected `port` in `\S+` to be a whole number/],
  ['{ "port": true }', /^Expected `port` in `\S+` to be a whole number/],
  ['{ "redis": { "password": "hunter2" } }', /^Expected `redis` in `\S+` to be a URL$/],
  ['{ "token": [{ "hunter2": 1 }] }', /^Expected `token` in `\S+` to be \[NAME:\]SCOPES=TOKEN/],
] as const) {
  test(`cli settings - the file ${content} is refused`, async () => {
    await assert.rejects(resolveSettings({}, await fileOf('config.json', content)), (error: Error) => {
      assert.match(error.message, expected)
      assert.doesNotMatch(error.message, /hunter2/)
      return error.name === 'UsageError'
    })
  })
}

test('cli settings - a file that is not there is named', async () => {
  await assert.rejects(resolveSettings({}, '/no/config.json'), /`\/no\/config\.json` cannot be read: ENOENT/)
  const tokens = given({ tokenFile: '/no/tokens' })
  await assert.rejects(resolveSettings(tokens, undefined), /`\/no\/tokens` cannot be read: ENOENT/)
})

test('cli settings - a flag wins over the environment, the environment over the file', async () => {
  const [port, other] = [await freePort(), await freePort()]
  const config = await fileOf('config.json', { port: 65_536, basePath: '/file' })
  {
    await using both = await Cli.start(['serve', '--port', `${port}`, '--config', config], {
      SOLOFLIGHT_PORT: 'x',
    })
    await both.says(`http://127.0.0.1:${port}/file,`)
  }
  await using variable = await Cli.start(['serve'], {
    SOLOFLIGHT_PORT: `${other}`,
    SOLOFLIGHT_CONFIG: config,
  })
  await variable.says(`http://127.0.0.1:${other}/file,`)
  await using file = await Cli.start(['serve', '--config', config])
  assert.match(await file.complaint(2), /^Expected `port` in `\S+config.json` to be .*, got `65536`$/)
})

test('cli settings - a wrong variable of the environment is named', async () => {
  await using cli = await Cli.start(['serve'], { SOLOFLIGHT_MAX_BODY: 'large' })
  assert.match(await cli.complaint(2), /^Expected SOLOFLIGHT_MAX_BODY to be a size .*, got `large`$/)
})
