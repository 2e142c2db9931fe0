// What somebody does with the dashboard: by mouse, by keyboard, with a token or without.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { until } from '../support/wait.ts'
import { Chromium, type Watched } from './support/browser.ts'
import { Scene } from './support/scene.ts'

let chromium: Chromium
let scene: Scene

const TOKENS = [
  { token: 'secret-admin', scopes: ['admin'], name: 'ops' },
  { token: 'secret-read', scopes: ['read'] },
  { token: 'secret-submit', scopes: ['read', 'submit'] },
] as const

before(async () => {
  ;[chromium, scene] = await Promise.all([
    Chromium.start(),
    Scene.start({ tokens: TOKENS, basePath: '/jobs' }),
  ])
})

after(async () => {
  await chromium[Symbol.asyncDispose]()
  await scene[Symbol.asyncDispose]()
})

async function signIn(token: string, hash = '#/'): Promise<Watched> {
  const watched = await chromium.open()
  const { page } = watched
  await page.goto(scene.url + hash)
  await page.getByLabel('Token').fill(token)
  await page.getByRole('button', { name: 'Sign in' }).click()
  await page.getByText('Live').waitFor()
  return watched
}

test('dashboard - a token is exchanged for a cookie that scripts cannot read, and that other sites do not send', async () => {
  await using watched = await chromium.open()
  const { page } = watched
  await page.goto(scene.url)
  await page.getByRole('heading', { name: 'Sign in' }).waitFor()
  await watched.assertAccessible('the sign-in')
  await page.getByLabel('Token').fill('secret-wrong')
  await page.keyboard.press('Enter')
  await page.getByRole('alert').getByText('The gateway does not know this token').waitFor()
  await page.getByLabel('Token').fill('secret-admin')
  await page.keyboard.press('Enter')
  await page.getByRole('heading', { name: 'Queues' }).waitFor()
  const [cookie, ...others] = await page.context().cookies()
  assert.deepEqual(others, [])
  assert.deepEqual(
    [cookie?.httpOnly, cookie?.sameSite, cookie?.path, cookie?.secure],
    [true, 'Strict', '/jobs', false],
  )
  assert.ok(!cookie?.value.includes('secret'))
  assert.equal(await page.evaluate('document.cookie'), '')
  await page.reload()
  await page.getByRole('heading', { name: 'Queues' }).waitFor()
  await page.getByRole('button', { name: 'Sign out ops' }).click()
  await page.getByRole('heading', { name: 'Sign in' }).waitFor()
  assert.deepEqual(await page.context().cookies(), [])
  watched.assertClean(/status of 401/)
})

test('dashboard - the page is found without its slash, below a base path', async () => {
  await using watched = await chromium.open()
  const { page } = watched
  await page.goto(scene.url.replace(/\/$/, ''))
  await page.getByRole('heading', { name: 'Sign in' }).waitFor()
  assert.equal(page.url(), scene.url)
})

test('dashboard - a session outlives its gateway, and ends with its token', async () => {
  await using watched = await signIn('secret-admin')
  const { page } = watched
  await scene.stopGateway()
  await page.getByText('The gateway has not answered since').waitFor()
  await scene.startGateway()
  await page.getByText('Live', { exact: true }).waitFor()
  assert.equal(await page.getByText('The gateway has not answered since').isVisible(), false)
})

test('dashboard - a scope that does not allow it has no buttons, and says why', async () => {
  const queue = scene.queue('scoped')
  const job = await queue.enqueue('print', { page: 1 })
  for (const [token, posts] of [
    ['secret-read', 0],
    ['secret-submit', 1],
  ] as const) {
    await using watched = await signIn(token, '#/queues/scoped')
    const { page } = watched
    await page.getByRole('link', { name: job.id }).waitFor()
    await page.getByText('Your token lacks the scope admin').waitFor()
    assert.equal(await page.getByRole('button', { name: 'Post a job' }).count(), posts)
    assert.equal(await page.getByRole('button', { name: /Pause|Cancel|Remove|Retry/ }).count(), 0)
    await watched.assertAccessible(`a queue with ${token}`)
    await page.getByRole('link', { name: job.id }).click()
    await page.getByText('"page": 1').waitFor()
    assert.equal(await page.getByRole('button', { name: /Cancel|Remove|Retry/ }).count(), 0)
    watched.assertClean()
  }
})

test('dashboard - a job is posted, fails, is retried, cancelled and removed; the page follows without a reload', async () => {
  await using watched = await signIn('secret-admin')
  const { page, assertClean, assertAccessible } = watched
  await page.getByRole('button', { name: 'Post a job' }).click()
  const dialog = page.getByRole('dialog')
  await dialog.getByLabel('Queue').fill('posted')
  await dialog.getByLabel('Job, as JSON').fill('{ "to": ')
  await dialog.getByRole('button', { name: 'Post' }).click()
  await dialog.getByRole('alert').getByText('This is not JSON').waitFor()
  await assertAccessible('the form of a job')
  await dialog.getByLabel('Job, as JSON').fill('{ "n": 1.0, "big": 12345678901234567890 }')
  await dialog.getByLabel('Attempts').fill('1')
  await dialog.getByRole('button', { name: 'Post' }).click()
  await page.getByRole('heading', { level: 1, name: /^Job / }).waitFor()
  // Byte for byte.
  await page.getByText('"big": 12345678901234567890').waitFor()
  await page.getByText('"n": 1.0').waitFor()
  await page.getByText('No worker is connected').waitFor()

  const queue = scene.queue('posted')
  let fails = true
  queue.process('job', () => {
    if (fails) throw new Error('the printer is on fire')
    return { done: true }
  })
  await page.getByText('the printer is on fire').waitFor()
  fails = false
  await page.getByRole('button', { name: 'Retry' }).click()
  await page.getByText('"done": true').waitFor()
  await page.getByRole('button', { name: 'Remove' }).click()
  await dialog.getByRole('button', { name: 'Remove the job' }).click()
  await page.getByRole('heading', { level: 1, name: 'posted' }).waitFor()

  await page.getByRole('button', { name: 'Pause' }).click()
  await page.getByText('The queue is paused').or(page.getByText('posted is paused')).first().waitFor()
  await until(async () => (await queue.paused()).includes(''), { what: 'the queue to be paused' })
  const job = await queue.enqueue('job', 2)
  await page.getByRole('link', { name: job.id }).click()
  await page.getByRole('button', { name: 'Cancel' }).click()
  await dialog.getByRole('button', { name: 'Cancel the job' }).click()
  await until(async () => (await job.status())?.state === 'failed', { what: 'the job to be cancelled' })
  await page.getByRole('link', { name: 'posted' }).click()
  await page.getByRole('button', { name: 'Resume' }).click()
  await until(async () => !(await queue.paused()).includes(''), { what: 'the queue to be resumed' })
  assertClean()
})

test('dashboard - by keyboard alone: the focus is seen, stays while the page follows, and comes back from a dialog', async () => {
  const queue = scene.queue('keys')
  await queue.enqueue('print', 1)
  await using watched = await signIn('secret-admin')
  const { page } = watched
  await page.getByRole('link', { name: 'keys', exact: true }).waitFor()
  await page.reload()
  await page.getByRole('link', { name: 'keys', exact: true }).waitFor()
  const seen: string[] = []
  const focused = () =>
    page.evaluate<string>('document.activeElement.ariaLabel || document.activeElement.textContent.trim()')
  for (let step = 0; step < 40; step++) {
    await page.keyboard.press('Tab')
    const name = await focused()
    const outline = await page.evaluate<string>('getComputedStyle(document.activeElement).outlineStyle')
    assert.notEqual(outline, 'none', `the focus on ${name} is not seen`)
    seen.push(name)
    if (name === 'keys') break
  }
  assert.equal(seen[0], 'Skip to content')
  for (const name of ['Queues', 'Workers', 'Find a job by its id', 'Post a job', 'keys'])
    assert.ok(seen.includes(name), `${name} in ${seen}`)
  // Two more snapshots.
  const { totals } = { totals: await page.locator('main').textContent() }
  await queue.enqueue('print', 2)
  await page.waitForFunction((before) => {
    const { document } = globalThis as unknown as {
      document: { querySelector(of: string): { textContent: string } }
    }
    return document.querySelector('main').textContent !== before
  }, totals)
  assert.equal(await focused(), 'keys')
  await page.keyboard.press('Enter')
  await page.getByRole('heading', { level: 1, name: 'keys' }).waitFor()
  await page.getByRole('button', { name: 'Post a job' }).focus()
  await page.keyboard.press('Enter')
  await page.getByRole('dialog').waitFor()
  await page.keyboard.press('Escape')
  await page.getByRole('dialog').waitFor({ state: 'detached' })
  assert.equal(await focused(), 'Post a job')
})
