// Every regular expression of the sources takes time proportional to its input. Proved by recheck, which translates each
// expression to an automaton and reports the degree of its backtracking, at every position where a match can begin.

import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { parseSync, Visitor } from 'oxc-parser'
import { register } from 'tsx/esm/api'

// The backend that needs no other process and no JVM.
process.env['RECHECK_BACKEND'] = 'pure'
const { checkSync } = await import('recheck')

// The modules are imported from their sources.
register()
const SOURCES = fileURLToPath(new URL('../../src', import.meta.url))

interface Expression {
  source: string
  flags: string
  where: string
}

async function filesOf(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true })
  return entries.filter((entry) => /\.tsx?$/.test(entry)).map((entry) => join(folder, entry))
}

/** The regular expression literals of a file, and the number of expressions that it creates from text. */
async function expressionsIn(file: string): Promise<{ written: Expression[]; made: number }> {
  const where = relative(SOURCES, file)
  const written: Expression[] = []
  let made = 0
  const count = ({ callee }: { callee: { type: string; name?: unknown } }): void => {
    if (callee.type === 'Identifier' && callee.name === 'RegExp') made++
  }
  new Visitor({
    Literal(node) {
      if ('regex' in node) written.push({ source: node.regex.pattern, flags: node.regex.flags, where })
    },
    NewExpression: count,
    CallExpression: count,
  }).visit(parseSync(file, await readFile(file, 'utf8')).program)
  return { written, made }
}

/** The expressions that modules create from text while they are loaded. */
async function madeBy(files: readonly string[]): Promise<Expression[]> {
  const made: Expression[] = []
  const real = globalThis.RegExp
  globalThis.RegExp = new Proxy(real, {
    construct(target, [source, flags = '']: [string, string?]) {
      const from = new Error().stack ?? ''
      if (from.includes(SOURCES)) made.push({ source, flags, where: 'new RegExp' })
      return new target(source, flags)
    },
  })
  try {
    for (const file of files) await import(pathToFileURL(file).href)
  } finally {
    globalThis.RegExp = real
  }
  return made
}

function verdictOn(source: string, flags: string): string {
  const verdict = checkSync(source, flags)
  return verdict.status === 'vulnerable' ? `vulnerable: ${verdict.complexity.summary}` : verdict.status
}

describe('regular expressions', () => {
  test('take linear time', async () => {
    const files = await filesOf(SOURCES)
    const found = await Promise.all(files.map(expressionsIn))
    // Not all files: the program runs when it is imported, and pages need a browser.
    const made = await madeBy(files.filter((_, index) => (found[index]?.made ?? 0) > 0))
    // Otherwise an expression that is created later, in a call, would be missed.
    assert.equal(
      made.length,
      found.reduce((sum, { made }) => sum + made, 0),
      'each `new RegExp` of the sources is made while its module is loaded',
    )
    const all = [...found.flatMap(({ written }) => written), ...made]
    assert.ok(all.length > 30, `${all.length} were found`)
    const different = new Map(all.map((each) => [`/${each.source}/${each.flags}`, each]))
    const slow = [...different.values()].flatMap(({ source, flags, where }) => {
      const verdict = verdictOn(source, flags)
      return verdict === 'safe' ? [] : [`${where}: /${source}/${flags} is ${verdict}`]
    })
    assert.deepEqual(slow, [])
  })

  test('that are not linear are found', () => {
    for (const slow of ['\\s*([;=])\\s*', '//.*@', '(a+)+$', 'a+b', '^(a|a)*$'])
      assert.match(verdictOn(slow, 'gs'), /^vulnerable/, slow)
    for (const fast of ['^\\s*([;=])', '[;=]', '^a+b']) assert.equal(verdictOn(fast, ''), 'safe', fast)
  })
})
