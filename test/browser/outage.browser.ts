// While Redis or the gateway is away, the page says so, shows what it knew, and comes back by itself.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Chromium } from './support/browser.ts'
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

test('dashboard - Redis is killed and comes back: since when it is away is said, what was known is shown, then it goes on', async () => {
  const queue = scene.queue('durable')
  await queue.enqueue('print', 1)
  await using watched = await chromium.open()
  const { page } = watched
  await page.goto(scene.url)
  await page.getByRole('link', { name: 'durable' }).waitFor()
  await scene.t.server.kill()
  await page.getByText(/Redis has not answered since \d\d:\d\d:\d\d; what you see is from then/).waitFor()
  assert.ok(await page.getByRole('link', { name: 'durable' }).isVisible())
  await watched.assertAccessible('the queues without Redis')
  // The page of a queue explains itself, too.
  await page.getByRole('link', { name: 'durable' }).click()
  await page.getByText(/The list cannot be read: store is unavailable|the gateway did not answer/).waitFor()
  await scene.t.server.restart()
  await page.getByText('Redis has not answered since').waitFor({ state: 'hidden' })
  await queue.enqueue('print', 2)
  await page.getByRole('link', { name: 'Waiting 2' }).waitFor()
  await page.getByRole('row').nth(2).waitFor()
  watched.assertClean(/status of 50[34]/)
})

test('dashboard - the gateway goes away and comes back: so it is said, and the page goes on without a reload', async () => {
  const queue = scene.queue('restarted')
  await queue.enqueue('print', 1)
  await using watched = await chromium.open()
  const { page } = watched
  await page.goto(`${scene.url}#/queues/restarted`)
  await page.getByRole('link', { name: 'Waiting 1' }).waitFor()
  await scene.stopGateway()
  await page
    .getByText(/The gateway has not answered since \d\d:\d\d:\d\d; what you see is from then/)
    .waitFor()
  await watched.assertAccessible('a queue without a gateway')
  await queue.enqueue('print', 2)
  await scene.startGateway()
  await page.getByRole('link', { name: 'Waiting 2' }).waitFor()
  await page.getByText('The gateway has not answered').waitFor({ state: 'hidden' })
  watched.assertClean(/net::ERR_|status of 50[34]/)
})
