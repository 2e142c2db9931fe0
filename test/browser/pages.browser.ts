// Every page, with jobs, keys, workers and services that are really there: what it shows, that axe-core finds nothing in either
// colour scheme, that it fits a phone, and what it costs.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { assertFits, Chromium } from './support/browser.ts'
import { gate, Scene } from './support/scene.ts'

let chromium: Chromium
let scene: Scene
/** The works that go on. */
const works = gate()
const ids = { failed: '', running: '' }

before(async () => {
  ;[chromium, scene] = await Promise.all([Chromium.start(), Scene.start()])
  const mails = scene.queue('mails')
  mails.process('send', async (payload, job) => {
    if (payload === 'bad') throw Object.assign(new Error('no such address'), { code: 'E_ADDRESS' })
    job.log('the server says hello')
    job.progress(0.5)
    await works.opened
  })
  const bad = await mails.enqueue('send', 'bad', { attempts: 1 })
  await bad.result().catch(() => {})
  const good = await mails.enqueue('send', { to: 'you' })
  await mails.enqueue('send', { to: 'me' })
  await mails.enqueue('digest', {}, { delay: 3_600_000 })
  Object.assign(ids, { failed: bad.id, running: good.id })
  await scene.queue('unserved').enqueue('print', [1, 2])
  const crowd = Array.from({ length: 1_001 }, (_, n) => ({
    command: n % 2 ? 'send' : 'print',
    payload: n,
    options: { delay: 3_600_000 },
  }))
  await scene.queue('crowd').enqueueMany(crowd)
  for (const command of ['print', 'send']) await scene.queue('crowd').enqueue(command, 'now')
  const idle = scene.queue('idle')
  await idle.pause()
  await idle.enqueue('print', 1)
  const work = async ({ progress }: { progress: (value: unknown) => void }) => {
    progress({ done: 3, total: 10 })
    await works.opened
    return 7
  }
  const [one, other] = [scene.locker(), scene.locker()]
  void one.run('page:7', work)
  await one.peek('page:7')
  for (const locker of [one, other, other]) void locker.run('page:7', work)
  const sums = await scene.services().register<{ add(a: number): number }>('sums', { capacity: 4 })
  sums.on('add', (a) => a)
})

after(async () => {
  works.open()
  await chromium[Symbol.asyncDispose]()
  await scene[Symbol.asyncDispose]()
})

const PAGES: readonly [name: string, hash: () => string, shows: () => readonly (string | RegExp)[]][] = [
  [
    'queues',
    () => '#/',
    () => ['mails', 'unserved', 'No worker is connected', 'The queue is paused', 'paused'],
  ],
  ['a queue', () => '#/queues/mails', () => ['Jobs per second', 'Commands', 'send']],
  ['a queue with many jobs', () => '#/queues/crowd', () => ['Not all jobs are counted by command']],
  ['failed jobs', () => '#/queues/mails?state=failed', () => ['no such address', ids.failed]],
  [
    'a job that runs',
    () => `#/jobs/mails/${ids.running}`,
    () => ['the server says hello', '50 %', '"to": "you"', /pid \d+/],
  ],
  [
    'a job that has failed',
    () => `#/jobs/mails/${ids.failed}`,
    () => ['no such address', 'E_ADDRESS', '"bad"'],
  ],
  ['keys', () => '#/keys', () => ['page:7', /is held by/, /pid \d+/, /4 waiters|3 waiters/, 'Lease left']],
  ['workers', () => '#/workers', () => ['mails', 'send', /pid \d+/, '1 of 1']],
  ['services', () => '#/services', () => ['sums', /pid \d+/, '0 of 4']],
  ['a page that is not there', () => '#/nowhere', () => ['No such page']],
  ['a job that is not there', () => '#/jobs/mails/nothing', () => ['There is no such job']],
]

for (const [name, hash, shows] of PAGES) {
  test(`dashboard - ${name}: all is shown, axe-core finds nothing, and it fits a phone`, async () => {
    await using watched = await chromium.open()
    const { page } = watched
    await page.goto(scene.url + hash())
    for (const text of shows()) await page.locator('main').getByText(text).first().waitFor()
    assert.equal(await page.locator('h1').count(), 1)
    await watched.assertAccessible(name)
    await page.setViewportSize({ width: 360, height: 740 })
    await assertFits(page, name)
    await watched.assertAccessible(`${name} on a phone`)
    watched.assertClean(/status of 404/)
  })
}

test('dashboard - it is small, and interactive at once', async (t) => {
  await using watched = await chromium.open()
  const { page } = watched
  const sizes = new Map<string, number>()
  page.on('response', async (response) => {
    const { pathname } = new URL(response.url())
    if (pathname !== '/' && !pathname.startsWith('/assets/')) return
    const { responseBodySize, responseHeadersSize } = await response.request().sizes()
    sizes.set(pathname, responseBodySize + responseHeadersSize)
  })
  await page.goto(scene.url)
  await page.getByRole('link', { name: 'mails' }).waitFor()
  const marks = await page.evaluate(() =>
    performance.getEntriesByName('interactive').map(({ startTime }) => startTime),
  )
  const total = [...sizes.values()].reduce((sum, size) => sum + size, 0) / 1024
  const [interactive = Number.POSITIVE_INFINITY] = marks
  t.diagnostic(
    `transferred: ${total.toFixed(1)} KiB in ${sizes.size} files; interactive after ${interactive.toFixed(0)} ms`,
  )
  assert.ok(sizes.size >= 3)
  assert.ok(total <= 60, `${total} KiB`)
})

test('dashboard - the page goes back and forward, and names itself', async () => {
  await using watched = await chromium.open()
  const { page } = watched
  await page.goto(scene.url)
  await page.getByRole('link', { name: 'mails' }).click()
  await page.getByRole('heading', { level: 1, name: 'mails' }).waitFor()
  await page.getByRole('link', { name: 'Failed 1' }).click()
  await page.getByRole('link', { name: ids.failed }).click()
  await page.getByRole('heading', { level: 1, name: `Job ${ids.failed}` }).waitFor()
  await page.goBack()
  await page.getByText('no such address').waitFor()
  await page.goBack()
  await page.goBack()
  await page.getByRole('heading', { level: 1, name: 'Queues' }).waitFor()
  assert.equal(await page.title(), 'Queues – soloflight')
  await page.goForward()
  await page.getByRole('heading', { level: 1, name: 'mails' }).waitFor()
  watched.assertClean()
})

test('dashboard - new lines of a log are shown as they are logged, without a snapshot', async () => {
  const queue = scene.queue('logged')
  let log = (_line: string): void => {}
  const ended = gate()
  queue.process('job', async (_, job) => {
    log = (line) => job.log(line)
    job.log('line 0')
    await ended.opened
  })
  const { id } = await queue.enqueue('job', 1)
  await using watched = await chromium.open()
  const { page } = watched
  // The page is shown the first snapshot again and again: by its time, nothing is to be read anew.
  await page.addInitScript(`
    const Native = EventSource
    globalThis.EventSource = class extends Native {
      set onmessage(hear) {
        let first
        super.onmessage = (event) => hear((first ??= event))
      }
    }
  `)
  await page.goto(`${scene.url}#/jobs/logged/${id}`)
  await page.getByText('line 0').waitFor()
  // The gateway and the worker know of the watcher when the first of these arrives.
  for (let n = 1; n <= 5; n++) {
    log(`line ${n}`)
    await page.getByText(`line ${n}`, { exact: false }).waitFor()
  }
  ended.open()
  await page.getByText('Completed', { exact: true }).first().waitFor()
})

test('dashboard - a job is found by its id, without its queue', async () => {
  await using watched = await chromium.open()
  const { page } = watched
  await page.goto(scene.url)
  await page.getByRole('link', { name: 'mails' }).waitFor()
  await page.getByLabel('Find a job by its id').fill(ids.running)
  await page.keyboard.press('Enter')
  await page.getByRole('heading', { level: 1, name: `Job ${ids.running}` }).waitFor()
  await page.getByLabel('Find a job by its id').fill('nothing')
  await page.keyboard.press('Enter')
  await page.getByRole('status').getByText('queues has a job with this id').waitFor()
})
