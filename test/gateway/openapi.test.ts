// The description of the routes: it comes from the table by which they are dispatched.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { z } from 'zod'
import { createGateway } from '../../src/gateway/index.ts'
import { ROUTES } from '../../src/gateway/routes/index.ts'
import { MESSAGE_TYPES } from '../../src/gateway/ws/messages/index.ts'
import { serve } from '../support/gateway.ts'

interface Operation {
  summary: string
  'x-scope'?: string
  parameters: { name: string; in: string; required: boolean; schema: Record<string, unknown> }[]
  responses: Record<string, { description: string }>
}

interface Document {
  openapi: string
  servers: { url: string }[]
  paths: Record<string, Record<string, Operation>>
}

async function documentOf(basePath: string): Promise<Document> {
  const gateway = await serve(createGateway({ basePath, tokens: [] }))
  try {
    const { status, json } = await gateway.call('GET', `${basePath}/openapi.json`)
    assert.equal(status, 200, 'it needs no token')
    return json as Document
  } finally {
    await gateway.close()
  }
}

test('openapi - every route is described, with what it needs and is given', async () => {
  const { openapi, servers, paths } = await documentOf('/jobs')
  assert.equal(openapi, '3.1.0')
  assert.deepEqual(servers, [{ url: '/jobs' }])
  assert.ok(paths['/q/{queue}']?.['post']?.responses['504'], 'a wait with `abort=unwanted` may end')
  const take = paths['/q/{queue}']?.['get']
  assert.equal(take?.['x-scope'], 'work')
  assert.deepEqual(
    take?.parameters.map(({ name, in: place, required }) => [name, place, required]),
    [
      ['queue', 'path', true],
      ['command', 'query', false],
      ['lease', 'query', false],
      ['wait', 'query', false],
      ['Prefer', 'header', false],
    ],
  )
  const batch = paths['/qb/{queue}']?.['get']?.parameters.find(({ name }) => name === 'batch_size')
  assert.deepEqual(batch?.schema, { type: 'integer', minimum: 1, maximum: 1000 })
  const described = Object.values(paths).flatMap((operations) => Object.values(operations))
  assert.equal(described.length, ROUTES.filter(({ summary }) => summary !== undefined).length - 2)
  for (const { summary, responses } of described) {
    assert.match(summary, /^[A-Z].*\.$/)
    for (const { description } of Object.values(responses)) assert.match(description, /[.`]$/)
  }
})

test('openapi - the page has every path, and no script', async () => {
  const gateway = await serve(createGateway())
  try {
    const { status, text, headers } = await gateway.call('GET', '/docs')
    assert.equal(status, 200)
    assert.match(headers.get('content-security-policy') ?? '', /default-src 'none'/)
    assert.doesNotMatch(text, /<script/)
    for (const path of Object.keys((await documentOf('')).paths)) assert.ok(text.includes(path), path)
  } finally {
    await gateway.close()
  }
})

/** The section of a message on the page, as text without tags. */
function sectionOf(page: string, type: string): string {
  const [, section = ''] = page.split(`<h2 id="message-${type}">`)
  const [own = ''] = section.split(/<h2|<\/body/)
  return own
    .replace(/<[^>]*>/g, '')
    .replaceAll('&#39;', "'")
    .replaceAll('&quot;', '"')
}

test('openapi - the page describes every message of WebSockets by the table that dispatches them', async () => {
  const gateway = await serve(createGateway({ basePath: '/jobs', tokens: [] }))
  try {
    const { text, status } = await gateway.call('GET', '/jobs/docs')
    assert.equal(status, 200, 'it needs no token')
    assert.ok(text.includes('Messages of <code>/jobs/ws</code>'))
    for (const { type, summary, scope, schema } of MESSAGE_TYPES) {
      const section = sectionOf(text, type)
      assert.match(summary, /^[A-Z].*\.$/)
      assert.ok(section.includes(`${type}\n${summary} Scope: ${[scope].flat().join(' or ')}.`), section)
      for (const name of Object.keys((schema as z.ZodObject).shape)) assert.ok(section.includes(name), name)
    }
    assert.equal(text.match(/id="message-/g)?.length, MESSAGE_TYPES.length)
    const take = sectionOf(text, 'take')
    assert.match(take, /^queuetext$/m)
    assert.match(take, /^leasea duration, optional$/m)
    assert.match(sectionOf(text, 'work'), /^concurrencya whole number from 1 to 100, optional$/m)
    assert.match(sectionOf(text, 'inspect'), /^of"count" or "ttl" or "maxsize" or "find"$/m)
  } finally {
    await gateway.close()
  }
})
