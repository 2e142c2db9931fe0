// Makes the images of docs/guides/dashboard.md: npm run screenshots

import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, stat } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import { Shop } from '../examples/dashboard/shop.ts'
import { takeAssetsFrom } from '../src/gateway/dashboard/assets.ts'
import { createGateway } from '../src/gateway/index.ts'
import { toNodeListener } from '../src/gateway/node.ts'
import { findChromium } from '../test/support/chromium.ts'
import { tie } from '../test/support/lifeline.ts'
import { RedisServer } from '../test/support/redis-server.ts'
import { bundleDashboard } from './dashboard/bundle.ts'

const IMAGES = fileURLToPath(new URL('../docs/images/', import.meta.url))
const MEMBER = fileURLToPath(new URL('../examples/dashboard/member.ts', import.meta.url))

/** The charts show so much, ms. */
const HISTORY = Number(process.env['HISTORY_SECONDS'] ?? 100) * 1000
const LARGEST = 150 * 1000

const WIDE = { viewport: { width: 1120, height: 760 } }
const PHONE = { viewport: { width: 360, height: 720 }, deviceScaleFactor: 2 }

interface Shot {
  readonly name: string
  readonly hash: string
  readonly options: BrowserContextOptions
  /** Resolves when the page shows what the image is about. */
  readonly ready: (page: Page) => Promise<unknown>
}

const SHOTS: readonly Shot[] = [
  {
    name: 'dashboard-queues',
    hash: '#/',
    options: { ...WIDE, colorScheme: 'light' },
    ready: (page) => page.getByRole('link', { name: 'webhooks' }).waitFor(),
  },
  {
    name: 'dashboard-queue',
    hash: '#/queues/webhooks?state=failed',
    options: { ...WIDE, viewport: { width: 1120, height: 900 }, colorScheme: 'dark' },
    ready: (page) => page.getByText('502 Bad Gateway').first().waitFor(),
  },
  {
    name: 'dashboard-keys',
    hash: '#/keys',
    options: { ...WIDE, colorScheme: 'light' },
    ready: (page) => page.getByText('waiters in 3 processes').nth(1).waitFor(),
  },
  {
    name: 'dashboard-phone',
    hash: '#/',
    options: { ...PHONE, colorScheme: 'dark' },
    ready: (page) => page.getByRole('link', { name: 'imports' }).waitFor(),
  },
]

takeAssetsFrom(bundleDashboard)
await mkdir(IMAGES, { recursive: true })
await using server = await RedisServer.start({ port: 'free' })
const redis = `redis://127.0.0.1:${server.port}`
const gateway = createGateway({ redis })
const http = createServer(toNodeListener(gateway)).listen(0, '127.0.0.1')
await once(http, 'listening')
const url = `http://localhost:${(http.address() as AddressInfo).port}/`
const shop = new Shop({ queues: { redis }, locker: { redis }, services: { redis } })
await shop.neglect()
const members = [1, 2, 3].map(startMember)
const browser = await chromium.launch({
  executablePath: await findChromium(),
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking'],
})
await Promise.all(SHOTS.map((shot) => take(browser, shot)))
await browser.close()
for (const member of members) member.disconnect()
await shop[Symbol.asyncDispose]()
http.closeAllConnections()
http.close()
await gateway.close({ grace: 0 })

function startMember(): ChildProcess {
  const member = fork(MEMBER, { env: { ...process.env, REDIS_URL: redis } })
  tie(member)
  return member
}

async function take(browser: Browser, { name, hash, options, ready }: Shot): Promise<void> {
  const context = await browser.newContext(options)
  const page = await context.newPage()
  await page.goto(url + hash)
  await sleep(HISTORY)
  await ready(page)
  const path = `${IMAGES}${name}.png`
  await page.screenshot({ path })
  await context.close()
  const { size } = await stat(path)
  console.log(`${name}.png: ${Math.ceil(size / 1000)} kB`)
  if (size > LARGEST) process.exitCode = 1
}
