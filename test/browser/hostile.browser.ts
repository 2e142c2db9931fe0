// What others put into jobs and names is shown as text, however it is meant, and however much it is.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { RedisQueue } from '../../src/index.ts'
import { assertFits, Chromium } from './support/browser.ts'
import { Scene } from './support/scene.ts'

let chromium: Chromium
let scene: Scene

before(async () => {
  ;[chromium, scene] = await Promise.all([Chromium.start(), Scene.start()])
})

after(async () => {
  await chromium[Symbol.asyncDispose]()
  await scene[Symbol.asyncDispose]()
})

const HOSTILE = [
  '<img src=x onerror="alert(1)">',
  '</script><script>alert(2)</script>',
  'javascript:alert(3)',
  '\u202Egnp.exe\u202C مرحبا بالعالم',
  `${'{{constructor.constructor("alert(4)")()}}'}\`\${alert(5)}\``,
  'a'.repeat(250),
] as const

test('dashboard - hostile names, payloads, results, logs and failures are text', async () => {
  for (const text of HOSTILE) {
    const queue = scene.queue(text)
    queue.process(text, (payload, job) => {
      job.log(text)
      job.progress(text)
      if (payload === text) throw Object.assign(new Error(text), { name: text, code: text })
      return { [text]: text }
    })
    const failed = await queue.enqueue(text, text, { attempts: 1 })
    await failed.result().catch(() => {})
    const done = await queue.enqueue(text, { [text]: [text] })
    await done.result()
    await using watched = await chromium.open({ viewport: { width: 360, height: 740 } })
    const { page } = watched
    const inQueue = `#/queues/${encodeURIComponent(text)}`
    const inJobs = `#/jobs/${encodeURIComponent(text)}`
    for (const [hash, shown] of [
      ['#/', text],
      ['#/workers', text],
      [`${inQueue}?state=failed`, failed.id],
      [`${inQueue}?state=failed&command=${encodeURIComponent(text)}`, failed.id],
      [`${inQueue}?state=failed&text=${encodeURIComponent(text)}`, /found among/],
      [`${inJobs}/${failed.id}`, text],
      [`${inJobs}/${done.id}`, text],
    ] as const) {
      await page.goto(scene.url + hash)
      await page.locator('main').getByText(shown).first().waitFor()
      await assertFits(page, `${hash}`)
    }
    await watched.assertAccessible(text)
    watched.assertClean()
    await queue.erase()
  }
})

test('dashboard - a payload of a megabyte is shown in part, and all of it on demand', async () => {
  const queue = scene.queue('large')
  const text = 'x'.repeat(1_000_000)
  const { id } = await queue.enqueue('print', { text, end: 'the end' })
  await using watched = await chromium.open()
  const { page } = watched
  await page.goto(`${scene.url}#/queues/large`)
  await page.getByText(/1,000,0\d\d characters/).waitFor()
  await page.getByRole('link', { name: id }).click()
  await page.getByText('20,000 of').waitFor()
  assert.ok(String(await page.locator('main').textContent()).length < 50_000)
  for (const shown of ['200,000 of', undefined]) {
    await page.getByRole('button', { name: 'Show more' }).click()
    if (shown) await page.getByText(shown).waitFor()
  }
  await page.getByText('"end": "the end"').waitFor()
  watched.assertClean()
})

async function fill(queue: RedisQueue, count: number): Promise<void> {
  for (let at = 0; at < count; at += 1_000)
    await queue.enqueueMany(
      Array.from({ length: 1_000 }, (_, index) => ({
        command: index % 2 === 0 ? 'even' : 'odd',
        payload: { n: at + index, tag: (at + index) % 4_000 === 3_999 ? 'rare-one' : 'common' },
        options: { dedupe: false },
      })),
    )
}

test('dashboard - ten thousand jobs: pages, a search that says how far it is, and an action that says on how many', async () => {
  const queue = scene.queue('many')
  await fill(queue, 10_000)
  await using watched = await chromium.open()
  const { page } = watched
  await page.goto(`${scene.url}#/queues/many`)
  const rows = page.getByRole('table', { name: 'Waiting jobs of many' }).getByRole('row')
  await page.getByText('10,000', { exact: true }).first().waitFor()
  await rows.nth(25).waitFor()
  assert.equal(await rows.count(), 26)
  await page.getByRole('button', { name: 'Show more' }).click()
  await rows.nth(50).waitFor()

  await page.getByLabel('Text in the payload').fill('RARE-one')
  await page.keyboard.press('Enter')
  await page.getByText('2 jobs found among 10,000 jobs. All were looked at.').waitFor()
  await page.getByRole('button', { name: 'Remove all that match' }).click()
  const dialog = page.getByRole('dialog')
  await dialog.getByText('rare-one', { exact: false }).waitFor()
  // Another one appears meanwhile.
  await queue.enqueue('odd', { tag: 'rare-one' }, { priority: 1 })
  await dialog.getByRole('button', { name: 'Remove 2' }).click()
  await dialog.getByRole('alert').getByText('count differs').waitFor()
  assert.equal((await queue.counts()).waiting, 10_001, 'nothing was removed')
  await dialog.getByRole('button', { name: 'Close' }).click()
  await page.getByRole('button', { name: 'Remove all that match' }).click()
  await page.getByRole('button', { name: 'Remove 3', exact: true }).click()
  await page.getByRole('status').getByText('3 jobs removed').waitFor()
  assert.equal((await queue.counts()).waiting, 9_998)
  watched.assertClean(/status of 409/)
})
