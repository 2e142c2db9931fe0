import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import type { AxeResults } from 'axe-core'
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import { findChromium } from '../../support/chromium.ts'
import { until } from '../../support/wait.ts'

/** No service of its maker is asked for anything. */
const ARGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

const AXE = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

/** Runs in the page. */
const TELL_VIOLATIONS = `
  document.addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI, sample }) => {
    tellViolation([violatedDirective, blockedURI, sample].join(' '))
  })`

/** How long a test waits for the page, ms. */
const PATIENCE = 15_000

/** A page, and all that has gone wrong in it. */
export interface Watched extends AsyncDisposable {
  readonly page: Page
  /** Errors of scripts, messages of the console, and violations of the policy. */
  readonly errors: string[]
  /** Nothing has gone wrong, but for what is expected. */
  assertClean(...expected: RegExp[]): void
  /** axe-core finds nothing, in either colour scheme. */
  assertAccessible(what: string): Promise<void>
}

/** Chromium with an empty profile, which ends with the scope. */
export class Chromium implements AsyncDisposable {
  readonly #browser: Browser

  private constructor(browser: Browser) {
    this.#browser = browser
  }

  static async start(): Promise<Chromium> {
    const executablePath = await findChromium()
    return new Chromium(await chromium.launch({ executablePath, args: ARGS, headless: true }))
  }

  /** A page with cookies of its own. */
  async open(options: BrowserContextOptions = {}): Promise<Watched> {
    const context = await this.#browser.newContext({ viewport: { width: 1200, height: 800 }, ...options })
    context.setDefaultTimeout(PATIENCE)
    const page = await context.newPage()
    const errors: string[] = []
    page.on('pageerror', (error) => errors.push(`error: ${error.message}`))
    page.on('console', (message) => {
      if (message.type() === 'error' || message.type() === 'warning')
        errors.push(`console: ${message.text()}`)
    })
    page.on('dialog', (dialog) => {
      errors.push(`dialog: ${dialog.message()}`)
      void dialog.dismiss()
    })
    await page.exposeFunction('tellViolation', (text: string) => errors.push(`policy: ${text}`))
    await page.addInitScript(TELL_VIOLATIONS)
    return {
      page,
      errors,
      assertClean: (...expected) =>
        assert.deepEqual(
          errors.filter((error) => !expected.some((each) => each.test(error))),
          [],
        ),
      assertAccessible: (what) => assertAccessible(page, what),
      [Symbol.asyncDispose]: () => context.close(),
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#browser.close()
  }
}

async function assertAccessible(page: Page, what: string): Promise<void> {
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme })
    if (!(await page.evaluate<boolean>('"axe" in globalThis'))) await page.evaluate(AXE)
    const { violations } = await page.evaluate<AxeResults>('axe.run()')
    const found = violations.flatMap(({ id, nodes }) =>
      nodes.map(({ html, failureSummary }) => `${id}: ${html} ${failureSummary}`),
    )
    assert.deepEqual(found, [], `${what}, ${colorScheme}`)
  }
}

/** No page is wider than the window. */
export async function assertFits(page: Page, what: string): Promise<void> {
  const widths = () =>
    page.evaluate<number[]>('[document.documentElement.scrollWidth, document.documentElement.clientWidth]')
  // Charts follow the window when the browser has laid the page out.
  const fits = async () => {
    const [content = 0, window = 0] = await widths()
    return content <= window
  }
  await until(fits, { what: `${what} to fit its window` })
}
