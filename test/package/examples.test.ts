import assert from 'node:assert/strict'
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { chmod, mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { before, describe, test } from 'node:test'
import { promisify } from 'node:util'
import { findFiles, MOST_BYTES, MOST_FILES } from '../../examples/demo/folder.ts'
import { makeReport } from '../../examples/demo/report.ts'
import { SETTINGS } from '../../examples/demo/settings.ts'
import { busServers } from '../support/bus-servers.ts'
import { compileAll } from '../support/compiled.ts'
import { COMPILED, outputOf, ROOT } from '../support/compiled-output.ts'
import { temporaryFolder, tie } from '../support/lifeline.ts'
import { freePort } from '../support/ports.ts'
import type { RedisServer } from '../support/redis-server.ts'
import { type Setup, setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const run = promisify(execFile)
const EPSILON = 500
const ESCAPE = '\u001b'

/** One run of an example, as it goes on. */
class Run {
  readonly child: ChildProcess
  stdout = ''
  stderr = ''
  /** When it wrote last, and when it was gone. */
  wroteAt = 0
  exitedAt = 0
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>

  constructor(command: string, args: readonly string[], env: Record<string, string> = {}) {
    // The runner's own wishes about colour and Redis are not the example's.
    const { CI, FORCE_COLOR, NO_COLOR, REDIS_URL, ...inherited } = process.env
    const stdio = ['ignore', 'pipe', 'pipe'] as const
    this.child = spawn(command, args, {
      cwd: ROOT,
      env: { ...inherited, ...env },
      stdio: [...stdio],
      timeout: 60_000,
    })
    tie(this.child)
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => this.#wrote('stdout', text))
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => this.#wrote('stderr', text))
    this.child.once('exit', () => {
      this.exitedAt = performance.now()
    })
    this.ended = once(this.child, 'close').then(([code, signal]) => ({ code, signal }))
  }

  #wrote(stream: 'stdout' | 'stderr', text: string): void {
    this[stream] += text
    this.wroteAt = performance.now()
  }

  /** Its output, once it has ended well. */
  async output(): Promise<string> {
    const { code, signal } = await this.ended
    assert.deepEqual(
      { code, signal, stderr: this.stderr },
      { code: 0, signal: null, stderr: '' },
      this.stdout,
    )
    return this.stdout
  }

  /** The one line that it has ended with. */
  async complaint(): Promise<string> {
    const { code } = await this.ended
    assert.equal(code, 1, this.stdout + this.stderr)
    assert.match(this.stderr, /^soloflight demo: [^\n]+\n$/)
    return this.stderr.trim()
  }
}

/** Started as it says at its head: by tsx, which takes as long as most examples. */
function exampleByTsx(name: string, args: readonly string[] = [], env: Record<string, string> = {}): Run {
  const file = join('examples', `${name}.ts`)
  return new Run(process.execPath, ['--import', import.meta.resolve('tsx'), file, ...args], env)
}

const FORKS_COMPILED = join(ROOT, 'test/support/forks-compiled.ts')
let folder = ''
before(async () => {
  const names = await readdir(join(ROOT, 'examples'), { recursive: true })
  const examples = names.filter((name) => name.endsWith('.ts')).map((name) => join(ROOT, 'examples', name))
  folder = await compileAll([FORKS_COMPILED, ...examples])
})

/** What Node is to run, and where it finds what that forks. */
const compiledCommand = (name: string): string[] => [
  ...['--import', outputOf(FORKS_COMPILED, folder)],
  outputOf(join(ROOT, 'examples', `${name}.ts`), folder),
]

function example(name: string, args: readonly string[] = [], env: Record<string, string> = {}): Run {
  return new Run(process.execPath, [...compiledCommand(name), ...args], { ...env, [COMPILED]: folder })
}

/** What follows a name in the output of the demonstration. */
function fact(output: string, name: string): string {
  const [, value] = new RegExp(`^ {2}${name} +(.*)$`, 'm').exec(output) ?? []
  assert.ok(value, `no "${name}" in:\n${output}`)
  return value
}

/** Every key has an end. Returns how many there are. */
async function expiringKeys(server: RedisServer): Promise<number> {
  const keys = (await server.call('KEYS', '*')) as string[]
  for (const key of keys) {
    const left = Number(await server.call('PTTL', key))
    assert.notEqual(left, -1, `${key} never expires`)
  }
  return keys.length
}

/** A folder with these files. */
async function folderOf(files: Record<string, string>): Promise<string> {
  const folder = await temporaryFolder()
  await chmod(folder, 0o755)
  for (const [name, content] of Object.entries(files)) {
    await mkdir(join(folder, name, '..'), { recursive: true })
    await writeFile(join(folder, name), content)
  }
  return folder
}

/** Lines that an example prints, wherever it keeps its records; others may be between them. */
const EXAMPLES: Record<string, (string | RegExp)[]> = {
  protocol: [
    '  Bob received a report made by Ann',
    '  Cyd received a report made by Ann',
    '  RemoteError: no data today',
    '  the fence grew: true',
    '  "written by the former holder" is refused: its fence is older',
    /^ {2}LeaseLostError: /,
    '  the row says: written by the present holder',
  ],
  memoize: [
    '6 calls for 2 different numbers: 78498, 78498, 78498, 148933, 148933, 148933',
    'computations: 2',
    /^a later call took \d+\.\d\d ms; computations: 2$/,
  ],
  errors: [
    ...Array(3).fill('  RemoteError: card declined (Error, E_CARD)'),
    '  attempts: 1',
    /^ {2}TimeoutError: .*50 ms/,
    /^ {2}AbortedError: /,
    '  who kept waiting receives the result',
    /^ {2}RemoteError: .* Date at \$\.at .*E_CODEC/,
  ],
  progress: [
    /^here {2}sees {"step":\d,"of":5}$/,
    /^there sees {"step":\d,"of":5}$/,
    'here received cake, there cake; computations: 1',
  ],
  invalidate: [
    'at first: here 100, there 100',
    'changed, but cached: here 100, there 100',
    'invalidated: here 120, there 120',
    'refreshed: here 140',
    'after that: here 140, there 140',
    'invalidated meanwhile: who waited before received 160, who asked after 180',
  ],
  shutdown: [
    'short: finished here',
    /^long: ClosedError, /,
    'long, for who waits in another process: computed there instead',
  ],
  stream: [
    /^Ada {3}has the first word after \d+ ms$/,
    /^Alan {2}has the first word after \d+ ms$/,
    ...['Ada  ', 'Grace', 'Alan ', 'Edsger'].map(
      (who) => new RegExp(`^${who} has all 17 words after \\d+ ms$`),
    ),
    'users: 4, calls of the model: 1, different texts: 1',
  ],
  ...Object.fromEntries(
    Object.entries({
      express: ['who has it already: 304 Not Modified', /^a private page: yours alone; soloflight; fwd=/],
      hono: ['not shared: fine; null'],
      fastify: [/^not stored: never twice the same; soloflight; fwd=/],
      koa: [/^a private page: yours alone; soloflight; fwd=/],
    }).map(([name, lines]) => [
      name,
      [
        '50 requests at once received {"apples":3,"pears":4}',
        'the page was made 1 time',
        /^later: soloflight; hit; ttl=(59|60)$/,
        ...lines,
      ],
    ]),
  ),
  services: [
    /^(object|process) \d+ makes the report$/,
    /^(object|process) \d+ is asked for the price of tea, attempt 1$/,
    /^(object|process) \d+ is asked for the price of coffee, attempt 1$/,
    /^(object|process) \d+ ends in the middle of it$/,
    /^(object|process) \d+ is asked for the price of (tea|coffee), attempt 2$/,
    'a process does not serve prices any more',
    '5 callers received: tea and coffee cost 7',
    '1 process serves prices',
  ],
  chat: [
    'Bob reads: hello Bob',
    'Ann reads: hello Ann',
    'Bob leaves',
    'Ann sees that Bob has left, and goes on writing',
    'Bob comes back',
    'Bob reads: are you there?',
    'Bob reads: I have written twice',
    'Bob reads: good night',
    'Bob sees that Ann has ended it',
  ],
  dedupe: [
    /^(queue|process) \d+ renders \/prices$/,
    ...Array(4).fill(/^(queue|process) \d+ received 5 × \/prices rendered by (queue|process) \d+$/),
    /^asked once more: cached, \/prices rendered by /,
  ],
}

/** Runs an example, which prints all its lines. */
async function shows(name: string, env: Record<string, string>, start = example): Promise<void> {
  const printed = (await start(name, [], env).output()).split('\n')
  for (const line of EXAMPLES[name] ?? assert.fail(`there is no example ${name}`)) {
    const found = printed.findIndex((text) => (typeof line === 'string' ? text === line : line.test(text)))
    assert.notEqual(found, -1, `${line} is not in:\n${printed.join('\n')}`)
    printed.splice(found, 1)
  }
}

describe('examples', () => {
  const isLeft = async ({ server }: Setup) => {
    assert.ok((await expiringKeys(server)) > 0)
    await until(async () => (await server.connectedClients()).length === 0, { what: 'no client left' })
  }

  for (const name of Object.keys(EXAMPLES)) {
    test(`examples - ${name} shows what it says, embedded and on Redis`, async () => {
      await using t = await setup({ port: 'free' })
      for (const env of [{}, { REDIS_URL: t.url }]) await shows(name, env)
      await isLeft(t)
    })
  }

  test('examples - started by tsx, with processes of their own, they show the same', async () => {
    await using t = await setup({ port: 'free' })
    await shows('dedupe', { REDIS_URL: t.url }, exampleByTsx)
    await isLeft(t)
  })

  test('examples - a second run, by socket, shows the same beside the records of the first', async () => {
    await using t = await setup({ port: 'free' })
    for (const url of [t.url, t.server.path]) await shows('memoize', { REDIS_URL: url })
    await isLeft(t)
  })
})

describe('examples of workers', () => {
  const begun = (worker: Run) =>
    Array.from(worker.stdout.matchAll(/begins with month (\d)/g), ([, month]) => Number(month))

  test('Q1 examples - a worker that gets SIGTERM loses nothing, and nobody waits for its lease', async () => {
    await using t = await setup({ port: 'free' })
    const workers = [example('worker', ['--redis', t.url]), example('worker', [], { REDIS_URL: t.url })]
    for (const { stdout } of workers) assert.equal(stdout, '')
    const ready = () => workers.every(({ stdout }) => / is ready/.test(stdout))
    await until(ready, { what: 'the workers', timeout: 30_000 })
    const producer = example('producer', ['--redis', t.url])
    const isAtLongOne = (worker: Run) => begun(worker).some((month) => month >= 5)
    const first = await until(() => workers.find(isAtLongOne), { what: 'a long job', timeout: 30_000 })
    const second = workers.find((worker) => worker !== first) ?? assert.fail('there are two')
    const from = performance.now()
    first.child.kill('SIGTERM')
    assert.match(await first.output(), /is closed; the process ends by itself/)
    assert.ok(first.exitedAt - from < 500 + 2 * EPSILON, `it ended after ${first.exitedAt - from} ms`)
    const output = await producer.output()
    assert.ok(producer.exitedAt - from < 9_000, `a lease was waited for: ${producer.exitedAt - from} ms`)
    const reports = [...output.matchAll(/^report (\d): month (\d) by worker (\d+); retries 0, stalls 0$/gm)]
    assert.equal(reports.length, 8, output)
    for (const [, number, month] of reports) assert.equal(number, month)
    assert.match(output, /created, created.*\n/)
    const twice = begun(first).filter((month) => begun(second).includes(month))
    assert.ok(twice.length > 0, `something was handed over: ${first.stdout}${second.stdout}`)
    const idleFrom = performance.now()
    second.child.kill('SIGTERM')
    await second.output()
    assert.ok(
      second.exitedAt - idleFrom < 2 * EPSILON,
      `idle, it ended after ${second.exitedAt - idleFrom} ms`,
    )
    await expiringKeys(t.server)
    await until(async () => (await t.server.connectedClients()).length === 0, { what: 'no client left' })
  })

  test('examples - those that need a Redis say so', async () => {
    for (const name of ['worker', 'producer', 'bus']) {
      const lonely = example(name)
      assert.equal((await lonely.ended).code, 1)
      assert.equal(lonely.stderr, 'This needs a Redis: --redis redis://localhost:6379, or REDIS_URL\n')
    }
  })
})

describe('example of a bus over several Redis', () => {
  test('B4 examples - one of three is killed and started again: the others do not notice', async () => {
    await using t = await busServers(3)
    const bus = example('bus', ['--redis', t.urls.join()])
    const prints = (what: string) =>
      until(() => bus.stdout.includes(what), { what: `"${what}" in ${bus.stdout}`, timeout: 30_000 })
    await prints('stop one of them')
    for (const name of t.names) assert.match(bus.stdout, new RegExp(`^queue \\d+ is on ${name}$`, 'm'))
    const [lost = '', ...others] = t.names
    const from = performance.now()
    process.kill(t.servers[0]?.pid ?? 0, 'SIGKILL')
    await prints(`${lost} is away; the bus is online`)
    await prints(`UnavailableError for what is on ${lost}; messages arrive on ${others.sort().join(' and ')}`)
    assert.ok(performance.now() - from < 5_000 + EPSILON)
    await t.servers[0]?.restart()
    const output = await bus.output()
    assert.match(output, new RegExp(`${lost} is back\nmessages arrive on all three\n$`))
    for (const server of t.servers) assert.ok((await expiringKeys(server)) > 0)
  })
})

describe('demo', () => {
  /** What holds for every run in one process. */
  function checkOneProcess(output: string): void {
    assert.equal(fact(output, 'computations'), '1')
    assert.match(fact(output, 'received'), /^100 × report [0-9a-f]{12}$/)
    const [digest] = /report \w+/.exec(fact(output, 'received')) ?? []
    assert.match(
      fact(output, 'late caller'),
      new RegExp(`^${digest} after \\d+\\.\\d\\d ms, out of the cache$`),
    )
    assert.equal(fact(output, 'a failure'), '100 × RemoteError (ENOENT); attempts: 1')
    assert.match(fact(output, 'took'), /^[\d.]+ m?s, where 100 computations take [\d.]+ m?s$/)
    assert.match(fact(output, 'saved'), /^[\d.]+ m?s$/)
  }

  test('demo - npm start computes once for a hundred callers, in plain text', async () => {
    const output = await new Run('npm', ['start', '--silent'], {
      npm_config_update_notifier: 'false',
    }).output()
    checkOneProcess(output)
    assert.match(fact(output, 'folder'), /^src: \d+ files, /)
    assert.doesNotMatch(output.replaceAll('\n', ''), /\p{Cc}/u)
  })

  test('demo - reports on the files of the folder that it is given', async () => {
    const text = 'one two three\nfour five\n'.repeat(20)
    const folder = await folderOf({
      'a.txt': text,
      'below/b.txt': text,
      'c.txt': 'nothing in common with the others: 0123456789',
      '.hidden': 'hidden',
      'node_modules/x.js': 'not yours',
      'empty.txt': '',
      [`steers${ESCAPE}[31m.txt`]: 'x',
    })
    await run('mkfifo', [join(folder, 'pipe')])
    const output = await example('demo', [folder]).output()
    checkOneProcess(output)
    assert.equal(fact(output, 'folder'), `${folder}: 4 files, 1.0 kB`)
    const sha256 = createHash('sha256').update(text).digest('hex').slice(0, 8)
    assert.match(fact(output, 'a.txt'), new RegExp(`^40 +100 +480 B +\\d+ % +\\d+ % +${sha256}$`))
    assert.match(fact(output, 'below/b.txt'), new RegExp(` ${sha256}$`))
    assert.match(output, /^ *\d+ % alike: (a.txt and below\/b.txt|below\/b.txt and a.txt)$/m)
    assert.match(output, /steers\?\[31m\.txt/)
    assert.doesNotMatch(output, /hidden|node_modules|empty|pipe/)
    assert.ok(!output.includes(ESCAPE))
  })

  test('demo - takes only so much of a large folder, and says so', async () => {
    const many = Object.fromEntries(Array.from({ length: MOST_FILES + 1 }, (_, i) => [`${i}.txt`, `${i}`]))
    const tooMany = await folderOf(many)
    const output = await example('demo', [tooMany]).output()
    checkOneProcess(output)
    assert.match(fact(output, 'folder'), new RegExp(`: ${MOST_FILES} files, `))
    assert.match(output, new RegExp(`it has more: at most ${MOST_FILES} files and 1.0 MB are taken`))
    const tooLarge = await folderOf({ large: 'x'.repeat(MOST_BYTES + 1), small: 'x' })
    assert.deepEqual(await findFiles(tooLarge), { files: ['small'], bytes: 1, more: true })
  })

  test('demo - leaves out the files that it cannot read, and fails when there are no others', async () => {
    const options = { signal: new AbortController().signal, onStep: () => {} }
    const some = await folderOf({ 'a.txt': 'a', 'b.txt': 'b' })
    const none = await folderOf({ 'a.txt': 'a' })
    for (const path of [join(some, 'b.txt'), join(none, 'a.txt')]) await chmod(path, 0)
    // The superuser may read everything: he is somebody else for a moment.
    const isRoot = process.geteuid?.() === 0
    if (isRoot) process.seteuid?.(65_534)
    try {
      const { files, unreadable } = await makeReport(some, options)
      assert.deepEqual([files.map(({ name }) => name), unreadable], [['a.txt'], ['b.txt']])
      await assert.rejects(makeReport(none, options), /none of the 1 files in .* can be read/)
    } finally {
      if (isRoot) process.seteuid?.(0)
    }
  })

  test('demo - bad input takes one line', async () => {
    const empty = await folderOf({ '.hidden': 'x', 'empty.txt': '' })
    const inputs = [
      [['no-such-folder'], /the folder no-such-folder cannot be read: ENOENT/],
      [['package.json'], /the folder package\.json cannot be read: ENOTDIR/],
      [[empty], /has no file to report on/],
      [['one', 'two'], /expected one folder, got 2; usage: npm start/],
      [['--bogus'], /Unknown option '--bogus'; usage: npm start/],
      [['--redis'], /argument missing; usage: npm start/],
      [['--redis', 'nonsense'], /Expected `redis` to be a URL/],
    ] as const
    const refuses = async ([args, expected]: (typeof inputs)[number]) => {
      const bad = example('demo', args)
      assert.match(await bad.complaint(), expected)
      assert.equal(bad.stdout, '')
    }
    await Promise.all(inputs.map(refuses))
  })

  const script = '/usr/bin/script'
  test('demo - it ends quietly when its output is not read to the end', async () => {
    const demo = example('demo')
    demo.child.stdout?.once('data', () => demo.child.stdout?.destroy())
    await demo.output()
    assert.doesNotMatch(demo.stdout, /late caller/)
  })

  test('demo - says how it is used', async () => {
    const demo = example('demo', ['--help'])
    assert.match(await demo.output(), /^usage: npm start -- \[folder\][^\n]*\n$/)
  })

  test('demo - finds the Redis that npm has taken for an option of its own', async () => {
    // As `npm start --redis=URL`, `npm start --redis URL` and `npm start --redis` hand it on.
    const url = `redis://localhost:${await freePort()}`
    const complains = async (args: string[], value: string, expected: RegExp) => {
      const demo = example('demo', args, { npm_config_redis: value })
      assert.match(await demo.complaint(), expected)
    }
    const cannotBeUsed = /Redis at redis:\/\/localhost:\d+ cannot be used/
    await Promise.all([
      complains([], url, cannotBeUsed),
      complains([url], 'true', cannotBeUsed),
      complains(['src', url], 'true', cannotBeUsed),
      complains(['src'], 'true', /expected --redis behind --; usage: /),
    ])
  })

  test('demo - colours and a line of progress are for terminals', async () => {
    const command = [process.execPath, ...compiledCommand('demo'), 'examples/demo'].join(' ')
    const args = ['-qec', command, '/dev/null']
    const coloured = await new Run(script, args, { TERM: 'xterm' }).output()
    assert.ok(coloured.includes(`${ESCAPE}[1m100 callers`))
    assert.match(coloured, /computing, step 1 of \d+/)
    const plain = await new Run(script, args, { TERM: 'xterm', NO_COLOR: '1' }).output()
    assert.ok(
      plain.includes('100 callers') && !plain.includes(`${ESCAPE}[1m`) && !plain.includes(`${ESCAPE}[36m`),
    )
  })
})

describe('demo on Redis', () => {
  const pids = (text: string, pattern: RegExp) => Array.from(text.matchAll(pattern), ([, pid]) => Number(pid))

  function isAlive(pid: number): boolean {
    try {
      return process.kill(pid, 0)
    } catch {
      return false
    }
  }

  test('L2 demo - the processor is killed, another one takes over, and everybody gets the result', async () => {
    await using t = await setup({ port: 'free' })
    const folder = await folderOf({ 'a.txt': 'a word', 'b.txt': 'another word' })
    // By option and by environment, by port and by socket; the second finds what the first has left.
    for (const demo of [
      example('demo', ['--redis', t.url]),
      example('demo', [folder], { REDIS_URL: t.server.path }),
    ]) {
      const output = await demo.output()
      const [first = 0] = pids(output, /process (\d+) is the processor/g)
      assert.match(output, /the 3 others are parked/)
      assert.deepEqual(pids(output, /process (\d+) is killed/g), [first])
      const [, second = 0, takeover, unit] =
        /process (\d+) takes over, ([\d.]+) (m?s) after/.exec(output) ?? []
      assert.notEqual(Number(second), first)
      assert.ok(Number(takeover) * (unit === 's' ? 1000 : 1) <= SETTINGS.lease + EPSILON, output)
      assert.deepEqual(pids(output, /process (\d+) has published/g), [Number(second)])
      assert.equal(fact(output, 'computations'), '1 finished, of 2 begun')
      const received = [...output.matchAll(/^ {2}process (\d+) +5 × (report [0-9a-f]{12})$/gm)]
      assert.equal(received.length, 3, output)
      assert.equal(new Set(received.map(([, , report]) => report)).size, 1)
      assert.match(fact(output, 'late caller'), new RegExp(`^${received[0]?.[2]} after .* out of the cache$`))
      assert.equal(fact(output, 'a failure'), '15 × RemoteError (ENOENT); attempts: 1')
      const [former = 0, latter = 0] = fact(output, 'fences').match(/\d+/g)?.map(Number) ?? []
      assert.ok(former > 0 && latter > former)
      assert.deepEqual(pids(output, /process (\d+)/g).filter(isAlive), [])
      assert.ok((await expiringKeys(t.server)) > 0)
    }
    await until(async () => (await t.server.connectedClients()).length === 0, { what: 'no client left' })
  })

  test('demo - killed itself, it leaves no process behind', async () => {
    await using t = await setup()
    const demo = example('demo', ['--redis', t.url])
    await until(() => /is the processor/.test(demo.stdout), { what: 'a processor', timeout: 30_000 })
    assert.ok((await t.server.connectedClients()).length > 2)
    demo.child.kill('SIGKILL')
    await once(demo.child, 'exit')
    const noClients = async () => (await t.server.connectedClients()).length === 0
    await until(noClients, { what: 'its processes to end', timeout: 10_000 })
    await expiringKeys(t.server)
  })

  test('demo - a Redis that is not there takes one line, without its password', async () => {
    const demo = example('demo', ['--redis', `redis://user:se@cret@localhost:${await freePort()}`])
    const complaint = await demo.complaint()
    assert.match(complaint, /Redis at redis:\/\/…@localhost:\d+ cannot be used: .*ECONNREFUSED/)
    assert.doesNotMatch(complaint, /se@cret|cret/)
    assert.equal(demo.stdout, '')
    // It has closed its locker before it complains: nothing is to keep it alive any longer.
    assert.ok(demo.exitedAt - demo.wroteAt < EPSILON, `it lingers for ${demo.exitedAt - demo.wroteAt} ms`)
  })

  test('demo - a Redis that goes away takes one line, and no process stays', async () => {
    await using t = await setup()
    const demo = example('demo', ['--redis', t.url])
    await until(() => /is the processor/.test(demo.stdout), { what: 'a processor', timeout: 30_000 })
    await t.server.kill()
    await demo.complaint()
    assert.deepEqual(pids(demo.stdout, /process (\d+)/g).filter(isAlive), [])
  })
})
