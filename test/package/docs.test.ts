// The documents: every block of TypeScript compiles, runs against a real server, and prints what it says that it prints;
// every link, and every heading that is linked to, is there.
//
// A block begins with ```ts. `ts no-run` says that it cannot run here (it listens on a fixed port, say): it compiles.
// What the blocks of a page share stands in a comment at its top: <!-- setup … --> . It is put before each of them.

import assert from 'node:assert/strict'
import { access, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { describe, test } from 'node:test'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { register } from 'tsx/esm/api'
import { setup } from '../support/setup.ts'
import { compile } from '../support/type-check.ts'

// The blocks are imported as TypeScript.
register()
const ROOT = new URL('../../', import.meta.url)
/** Where the blocks are written to be run: the depth of files of tests, for their imports. */
const HERE = new URL('./', import.meta.url)

/** Pages outside of docs. */
const OTHERS = [
  'README.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  'bench/README.md',
  'examples/README.md',
  'test/README.md',
]

interface Page {
  path: string
  text: string
}

interface Block {
  page: string
  code: string
  runs: boolean
  program: string
}

async function read(): Promise<Page[]> {
  const names = await readdir(new URL('docs/', ROOT), { recursive: true })
  const docs = names
    .filter((name) => name.endsWith('.md') && !name.startsWith('reference'))
    .map((name) => `docs/${name}`)
  const paths = [...docs.sort(), ...OTHERS]
  return await Promise.all(
    paths.map(async (path) => ({ path, text: await readFile(new URL(path, ROOT), 'utf8') })),
  )
}

/** The imports of some code, each name once, and the code without them. */
function hoisted(code: string): { imports: string; body: string } {
  const names = new Map<string, Set<string>>()
  const body = code.replace(
    /^import (?:(\w+),? )?(?:\{([^}]*)\} )?from ('[^']+')(?: *\/\/.*)?\n/gm,
    (_, whole, some, from) => {
      const named = names.get(from) ?? new Set()
      if (whole) named.add(`default as ${whole}`)
      for (const name of (some ?? '').split(',')) if (name.trim() !== '') named.add(name.trim())
      names.set(from, named)
      return ''
    },
  )
  const imports = [...names].map(([from, named]) => `import { ${[...named].join(', ')} } from ${from}`)
  return { imports: imports.join('\n'), body }
}

/** One module of the sources: what the page sets up, and the block in a scope of its own. */
function programOf(shared: string, code: string): string {
  const { imports, body } = hoisted(`${shared}\n;{\n${code}\n}`)
  return `${imports}\n${body}\nexport {}\n`.replace(/'soloflight(\/[\w/]+)?'/g, (_, path = '') => {
    const folder =
      /^\/(locker|memoize|queue|services|bus|gateway|kernel|worker|gateway\/ws|bus\/remote)$/.test(path) ||
      path === ''
    return `'../../src${path}${folder ? '/index' : ''}.ts'`
  })
}

function blocksOf({ path, text }: Page): Block[] {
  const shared = /<!-- setup\n([\s\S]*?)-->/.exec(text)?.[1] ?? ''
  return [...text.matchAll(/^```ts( no-run)?\n([\s\S]*?)^```/gm)].map(([, mark, code = '']) => ({
    page: path,
    code,
    runs: mark === undefined,
    program: programOf(shared, code),
  }))
}

/** What a block says that it prints: `console.log(…) // text`. */
function promised(code: string): string[] {
  return [...code.matchAll(/console\.log\(.*\) +\/\/ (.*)$/gm)].map(([, text = '']) => text)
}

/** The name that a heading is linked to by. */
function anchor(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-')
}

const pages = await read()
const blocks = pages.flatMap(blocksOf)

describe('docs', () => {
  test('all code compiles', async () => {
    assert.ok(blocks.length > 30, `${blocks.length} blocks`)
    const said = await compile(blocks.map(({ program }) => program))
    for (const [index, { page, code }] of blocks.entries()) {
      const errors = said[index]?.filter((line) => !/TS6133|TS6192|TS6196|TS6198|TS7028/.test(line))
      assert.deepEqual(errors, [], `${page}\n${code}`)
    }
  })

  test('all code that can run runs, and prints what it says', async () => {
    await using t = await setup()
    const redis = await t.client()
    for (const [index, { page, code, runs, program }] of blocks.entries()) {
      if (!runs) continue
      await redis.flushall()
      const file = fileURLToPath(new URL(`./docs-block-${process.pid}-${index}.ts`, HERE))
      await writeFile(file, program.replaceAll('redis://localhost:6379', t.url))
      const printed: string[] = []
      const { log } = console
      console.log = (...values: unknown[]) => void printed.push(values.map(String).join(' '))
      try {
        await import(pathToFileURL(file).href)
      } catch (error) {
        const { stack } = error as Error
        throw new Error(`${page}\n${code}\n${stack}`)
      } finally {
        console.log = log
        await rm(file)
      }
      for (const text of promised(code))
        assert.ok(
          printed.includes(text),
          `${page} does not print ${text}, but ${printed.join(' | ')}\n${code}`,
        )
    }
  })

  for (const { path, text } of pages)
    test(`${path} - its links lead somewhere`, async () => {
      const prose = text.replace(/^```[\s\S]*?^```/gm, '')
      for (const [, link = ''] of prose.matchAll(/\]\((?!https?:|mailto:)([^)\s]+)\)/g)) {
        const [file = '', fragment] = link.split('#')
        const target = new URL(file === '' ? path : file, file === '' ? ROOT : new URL(path, ROOT))
        await assert.doesNotReject(access(target), link)
        if (fragment === undefined || !target.pathname.endsWith('.md')) continue
        const there = await readFile(target, 'utf8')
        const anchors = [...there.matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) => anchor(heading))
        assert.ok(anchors.includes(fragment), link)
      }
    })
})

test('docs/guarantees.md - every promise names tests that carry its id, and every id of a test is a promise', async () => {
  const { text } = pages.find(({ path }) => path === 'docs/guarantees.md') ?? assert.fail()
  const rows = [...text.matchAll(/^\| \*\*([A-Z]\d)\*\*.*$/gm)]
  const ids = rows.map(([, id = '']) => id)
  for (const [row, id] of rows) {
    const files = [...row.matchAll(/\]\(\.\.\/(test\/[^)]+)\)/g)].map(([, file = '']) => file)
    assert.ok(files.length > 0, id)
    for (const file of files) {
      const source = await readFile(new URL(file, ROOT), 'utf8')
      assert.match(
        source,
        new RegExp(`(?:(?:test|describe|onBothStores)\\(\\s*|title: )['"\`][^'"\`]*\\b${id}\\b`),
        `${file} has no test of ${id}`,
      )
    }
  }
  const names = (await readdir(new URL('test/', ROOT), { recursive: true })).filter((name) =>
    name.endsWith('.test.ts'),
  )
  for (const name of names) {
    const source = await readFile(new URL(`test/${name}`, ROOT), 'utf8')
    for (const [, id = ''] of source.matchAll(/\b(?:test\(|onBothStores\(|title: )'([SLUQVB]\d)\b/g))
      assert.ok(ids.includes(id), `${name}: ${id}`)
  }
})

/** The fields of a record in the head of the scripts, and in a page: each page names the same ones. */
for (const [path, source] of [
  ['docs/locker-protocol.md', 'src/locker/store/redis/scripts/prelude.ts'],
  ['docs/queue-protocol.md', 'src/queue/store/redis/scripts/prelude.ts'],
] as const) {
  test(`${path} - it names the fields of the record as the scripts do`, async () => {
    const { text } = pages.find((page) => page.path === path) ?? assert.fail()
    const script = await readFile(new URL(source, ROOT), 'utf8')
    const table = /\n \* {3}field {2}.*\n([\s\S]*?)\n \*\n/.exec(script)?.[1] ?? assert.fail(source)
    const inSource = [...table.matchAll(/^ \* {3}([\w@~…,]+(?: (?:[\w,]+|…))*) {2,}\S/gm)].flatMap(
      ([, names = '']) => namesIn(names),
    )
    const record =
      /### The record|## The record[\s\S]*?\n\n(\|[\s\S]*?)\n\n/.exec(text)?.[1] ?? assert.fail(path)
    const inPage = [...record.matchAll(/^\| (`[^|]*) \|/gm)].flatMap(([, names = '']) =>
      namesIn(names.replaceAll('`', '')),
    )
    assert.ok(inPage.length > 15, path)
    assert.deepEqual(inPage.sort(), inSource.sort())
  })
}

test('docs/services-protocol.md - it names the keys as the scripts do', async () => {
  const { text } = pages.find((page) => page.path === 'docs/services-protocol.md') ?? assert.fail()
  const script = await readFile(new URL('src/services/store/redis/scripts/prelude.ts', ROOT), 'utf8')
  const inSource = [...script.matchAll(/^ \* {3}([A-Z]|r\/)\S* +(?:zset|hash|string) /gm)].map(
    ([, name]) => name,
  )
  const inPage = [...text.matchAll(/^\| `([A-Z]|r\/)[^`]*` \| (?:zset|hash|string) \|/gm)].map(
    ([, name]) => name,
  )
  assert.equal(inPage.length, 6)
  assert.deepEqual(inPage, inSource)
})

test('docs/bus-protocol.md - it names the keys of queues and topics as the scripts do', async () => {
  const { text } = pages.find(({ path }) => path === 'docs/bus-protocol.md') ?? assert.fail()
  const rowsOf = (lines: string, row: RegExp) =>
    [...lines.matchAll(row)].map(([, ...parts]) => parts.join(' '))
  const inSource: string[] = []
  for (const file of ['queues/scripts/prelude', 'topics/scripts']) {
    const script = await readFile(new URL(`src/bus/store/redis/${file}.ts`, ROOT), 'utf8')
    inSource.push(...rowsOf(script, /^ \* {3}([A-Z]) +(hash|stream|zset|string|list) /gm))
  }
  assert.equal(inSource.length, 10)
  assert.deepEqual(rowsOf(text, /^\| `([A-Z])` \| (hash|stream|zset|string|list) \|/gm), inSource)
})

/** `p, p1 … p3` and `p, p1 to p3` name the same fields; a parked flight is `@…` or `@park`. */
function namesIn(text: string): string[] {
  return text
    .replace(/@\w+|@…/g, '@')
    .replaceAll('~…', '~')
    .split(/[, ]+|…|to/)
    .map((name) => name.trim())
    .filter((name) => name !== '')
}
