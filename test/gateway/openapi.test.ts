// The description of the routes: it comes from the table by which they are dispatched.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createGateway } from '../../src/gateway/index.ts'
import { ROUTES } from '../../src/gateway/routes/index.ts'
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
