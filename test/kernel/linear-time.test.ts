import assert from 'node:assert/strict'
import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import { describe, test } from 'node:test'
import { jsonCodec } from '../../src/kernel/codec/codec.ts'
import { parseHttpDate } from '../../src/kernel/http-date.ts'
import { recordKey } from '../../src/kernel/keys.ts'
import { Inbox } from '../../src/kernel/redis/subscription.ts'
import { systemClock } from '../../src/kernel/time.ts'
import { type WaitNode, wouldDeadlock } from '../../src/kernel/work-scheduler.ts'
import { parseTagVersions, serializeTagVersions, tagsUnchanged } from '../../src/locker/cache/tag-guard.ts'
import type { KeyNamespace } from '../../src/locker/internal.ts'
import { headerFields, headerPairs } from '../../src/memoize/adapters/fetch/adapter.ts'
import { requestHeaders, writeResponse } from '../../src/memoize/adapters/node/messages.ts'
import { CapturedConnection } from '../../src/memoize/adapters/node/response-capture.ts'
import { invalidatedBy } from '../../src/memoize/engine/invalidation.ts'
import type { HeaderFields } from '../../src/memoize/engine/message.ts'
import { resolveHttpOptions } from '../../src/memoize/engine/options.ts'
import { contentLength } from '../../src/memoize/engine/recording.ts'
import { Responses } from '../../src/memoize/engine/responses.ts'
import { ResponseStorage } from '../../src/memoize/engine/storage.ts'
import { type CacheEntry, entryCodec, StoredResponse } from '../../src/memoize/engine/stored-response.ts'
import { freshenedFields, notModified, requestedRange } from '../../src/memoize/policy/conditional.ts'
import {
  CacheControl,
  connectionNamesFields,
  endToEndFields,
  fromRawHeaders,
  isFieldValue,
  isToken,
  parseList,
  toRawHeaders,
} from '../../src/memoize/policy/fields.ts'
import {
  normalizeFields,
  primaryKeyOf,
  requestDirectives,
  variantKey,
  varyNames,
} from '../../src/memoize/policy/request.ts'
import {
  explicitLifetime,
  initialAge,
  planFor,
  privateFieldsOf,
  privateReason,
} from '../../src/memoize/policy/response.ts'
import { QueueKeys } from '../../src/queue/store/redis/queue-calls.ts'
import { decodePayload, encodePayload } from '../../src/queue/submitting/submission.ts'
import { excessiveGrowth } from '../support/growth.ts'

// The cost of inputs whose length clients, origins and Redis choose is proportional to that length. Each function that reads
// such an input is measured on its worst inputs of two sizes. (Regular expressions: regexps.test.ts.)
/** A measurement: for an input of a size, the function that reads it. */
type Reading = readonly [name: string, make: (size: number) => () => unknown]

const times = <T>(count: number, make: (index: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => make(i))
const lifetimes = {
  ttl: 0,
  errorTtl: 0,
  heuristics: true,
  staleWhileRevalidate: 0,
  staleIfError: 0,
  revalidate: true,
}
const arrival = { responseTime: Date.now(), responseDelay: 0 }

/** The worst texts for parsers: optional and repeated parts that do not end. */
const TEXTS: Record<string, (size: number) => string> = {
  blanks: (n) => `a${' '.repeat(n)}b`,
  'blanks around an equals sign': (n) => `a${' '.repeat(n)}=${' '.repeat(n)}b`,
  'tabs and semicolons': (n) => `a${'\t; '.repeat(n)}b`,
  commas: (n) => ','.repeat(n),
  members: (n) => times(n, (i) => `m${i}`).join(', '),
  'one member, again and again': (n) => 'max-age=1,'.repeat(n),
  'directives without an end': (n) => 'max-age=1 '.repeat(n),
  'open quotes': (n) => 'a="b, '.repeat(n),
  'a quote that is never closed': (n) => `a="${'b'.repeat(n)}`,
  'backslashes in it': (n) => `a="${'\\'.repeat(n)}`,
  'escaped quotes': (n) => 'a="\\"'.repeat(n),
  'quotes and backslashes': (n) => '="\\'.repeat(n),
  subtags: (n) => `en${'-us'.repeat(n)}`,
  'half subtags': (n) => '-aaa'.repeat(n),
  digits: (n) => '9'.repeat(n),
  letters: (n) => 'a'.repeat(n),
  ranges: (n) => `bytes=${'0-1,'.repeat(n)}`,
  'a long range': (n) => `bytes=${'1'.repeat(n)}-${'2'.repeat(n)}`,
  tags: (n) => times(n, (i) => `W/"${i}"`).join(', '),
  slashes: (n) => '/'.repeat(n),
  'at signs': (n) => `http://${'@'.repeat(n)}`,
  'dots and colons': (n) => `http://${'a.:'.repeat(n)}/`,
  'a date that goes on': (n) => `Sun, 06 Nov 1994 08:49:37 GMT${' '.repeat(n)}x`,
}

/** All functions that read the text of a field, of a request or of a response. */
const READERS: Record<string, (text: string) => unknown> = {
  'parts of a list': parseList,
  'Cache-Control of a response': (text) => {
    const control = new CacheControl([text])
    const headers = { 'cache-control': text, 'last-modified': text, etag: text }
    privateReason(
      { authorized: true, status: 200, headers, control },
      { shareSetCookie: false, shareAuthorized: false },
    )
    privateFieldsOf(control)
    return planFor({ status: 200, headers }, control, arrival, lifetimes)
  },
  'Cache-Control of a request': (text) => requestDirectives({ 'cache-control': text }),
  Pragma: (text) => requestDirectives({ pragma: text }),
  'Accept-Language': (text) => normalizeFields({ 'accept-language': text }),
  'Accept-Encoding': (text) => normalizeFields({ 'accept-encoding': text }),
  Vary: (text) => varyNames({ vary: text }),
  'a field that Vary names': (text) =>
    variantKey('k', { names: ['accept-language', 'x'], id: 'i' }, { x: text, 'accept-language': text }),
  'If-None-Match': (text) => notModified({ 'if-none-match': text }, { etag: text.slice(0, text.length / 2) }),
  'If-Modified-Since': (text) => notModified({ 'if-modified-since': text }, { 'last-modified': text }),
  'Range, If-Range': (text) => requestedRange({ range: text, 'if-range': text }, { etag: text }, 10),
  Date: parseHttpDate,
  Age: (text) => initialAge({ age: text, date: text }, arrival),
  Connection: (text) => connectionNamesFields({ connection: text }),
  'Connection of a response': (text) => endToEndFields({ connection: text, x: text }),
  'Content-Length': (text) => assert.throws(() => contentLength({ 'content-length': ` ${text}x` })),
  Location: (text) =>
    invalidatedBy(
      { method: 'POST', url: '/a', headers: { host: 'h' } },
      { status: 201, headers: { location: text } },
    ),
  'the URL': (text) =>
    primaryKeyOf({ method: 'GET', url: `/${text}`, headers: { host: text } }, { key: undefined }),
  'an absolute URL of a change': (text) =>
    invalidatedBy(
      { method: 'POST', url: `http://h/${text}`, headers: { host: text } },
      { status: 200, headers: {} },
    ),
  'a name, a value': (text) => [isToken(text), isFieldValue(text)],
  'a key in Redis': (text) => [recordKey('p', text), new QueueKeys('p', text)],
  'a note of tags': (text) => parseTagVersions(text.replaceAll(' ', '\n')),
}

const lines = (name: string, value: (index: number) => string, size: number): string[] =>
  times(size, (i) => [name, value(i)]).flat()

function framed(head: unknown): Buffer {
  const bytes = Buffer.from(JSON.stringify(head))
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  return Buffer.concat([length, bytes])
}

const plan = { age: 0, lifetime: 1, keep: 1, whileRevalidate: 0, ifError: 0, onDemand: 0, collapse: false }
const kept = (fields: string[]): Buffer =>
  framed({ kind: 'response', status: 200, fields, plan, authorized: false })

function stored(headers: HeaderFields): StoredResponse {
  return new StoredResponse({
    status: 200,
    statusText: undefined,
    headers,
    plan,
    forAuthorized: false,
    body: Buffer.from('body'),
  })
}

/** Fields: many lines of one name, and many names. */
const FIELDS: Reading[] = [
  [
    'lines of one field',
    (n) => {
      const raw = lines('x', String, n)
      return () => toRawHeaders(fromRawHeaders(raw))
    },
  ],
  [
    'fields',
    (n) => {
      const raw = times(n, (i) => [`x-${i}`, 'v']).flat()
      return () => toRawHeaders(fromRawHeaders(raw))
    },
  ],
  [
    'fields that Connection names',
    (n) => {
      const names = times(n, (i) => `x-${i}`)
      const headers = { ...Object.fromEntries(names.map((name) => [name, 'v'])), connection: names.join() }
      return () => endToEndFields(headers)
    },
  ],
  [
    'a record with many lines',
    (n) => {
      const bytes = kept(lines('x', String, n))
      return () => entryCodec.decode(bytes)
    },
  ],
  [
    'a record with many fields',
    (n) => {
      const bytes = kept(times(n, (i) => [`x-${i}`, 'v']).flat())
      return () => entryCodec.decode(bytes)
    },
  ],
  [
    'a record of an index',
    (n) => {
      const bytes = framed({ kind: 'index', index: { id: 'i', names: times(n, (i) => `x-${i}`) } })
      return () => entryCodec.decode(bytes)
    },
  ],
  [
    'an answer with many lines',
    (n) => {
      const value = stored(fromRawHeaders(lines('x', String, n)))
      const found = { value, fence: 1, until: 0, invalidated: false, stale: false, unshared: true }
      const entry = { primaryKey: '', key: '', index: undefined, stale: found }
      const request = { method: 'GET', url: '/', headers: { range: 'bytes=0-1', 'if-none-match': '"x"' } }
      const options = resolveHttpOptions({})
      const hit = () => new Responses({ clock: systemClock, options }).staleIfError(request, entry)
      assert.equal(hit()?.status, 206)
      return hit
    },
  ],
  [
    'a confirmation with many lines',
    (n) => {
      const headers = fromRawHeaders(lines('x', String, n))
      return () => freshenedFields(headers, headers)
    },
  ],
  ...['cache-control', 'expires', 'age', 'vary', 'set-cookie', 'content-length', 'etag'].map(
    (name): Reading => [
      `lines of ${name}`,
      (n) => {
        const headers = fromRawHeaders(lines(name, () => '1', n))
        return () => {
          const control = CacheControl.of(headers)
          const terms = { shareSetCookie: true, shareAuthorized: true }
          privateReason({ authorized: false, status: 200, headers, control }, terms)
          planFor({ status: 200, headers }, control, arrival, lifetimes)
          explicitLifetime(headers, control)
          contentLength(headers)
          varyNames(headers)
        }
      },
    ],
  ),
  [
    'lines of Location, and a long URL',
    (n) => {
      const headers = fromRawHeaders(lines('location', (i) => `/${i}`, n))
      const url = `/${'a'.repeat(n)}`
      return () => invalidatedBy({ method: 'POST', url, headers: { host: 'h' } }, { status: 200, headers })
    },
  ],
  [
    'names in Vary, by an index of as many',
    (n) => {
      const names = times(n, (i) => `x-${i}`)
      const made = stored(fromRawHeaders(lines('vary', (i) => `x-${i}`, n)))
      const entry = { primaryKey: 'p', key: 'k', index: { names, id: 'i' }, stale: undefined }
      const request = { method: 'GET', url: '/', headers: {} }
      const namespace = { clock: systemClock } as unknown as KeyNamespace<CacheEntry>
      const storage = new ResponseStorage(namespace, resolveHttpOptions({}))
      return () => storage.place(made, request, entry)
    },
  ],
  [
    'fields of a request of node:http',
    (n) => {
      const request = new IncomingMessage(new Socket())
      request.rawHeaders = lines('x', String, n)
      request.headers = { x: times(n, String).join(', ') }
      return () => requestHeaders(request)
    },
  ],
  [
    'the head of a captured response',
    (n) => {
      const head = `HTTP/1.1 200 OK\r\n${'x: y\r\n'.repeat(n)}\r\n`
      return () =>
        new CapturedConnection(() => undefined)._write(Buffer.from(head), 'latin1', () => undefined)
    },
  ],
  [
    'an answer beside fields that were set before',
    (n) => {
      const headers = lines('x', String, n)
      return () => {
        const response = new ServerResponse(new IncomingMessage(new Socket()))
        response.setHeader('y', '1')
        writeResponse(response, { status: 200, statusText: undefined, headers, body: undefined })
      }
    },
  ],
  [
    'fields of a Request',
    (n) => {
      const headers = new Headers(headerPairs(lines('x', String, n)))
      return () => headerFields(headers)
    },
  ],
]

/** Messages, values and calls. */
const OTHERS: Reading[] = [
  [
    'a message of many',
    (n) => {
      const bundle = Buffer.from(`1*${`22:${'n'.repeat(21)}k`.repeat(n)}`)
      return () => new Inbox().deliver(bundle)
    },
  ],
  [
    'a message that is no bundle',
    (n) => {
      const bundle = Buffer.from(`1*${'2'.repeat(n)}`)
      return () => new Inbox().deliver(bundle)
    },
  ],
  [
    'tags of a value',
    (n) => {
      const epochs = new Map(times(n, (i) => [`t${i}`, i + 1]))
      return () => tagsUnchanged(parseTagVersions(serializeTagVersions(epochs)), epochs)
    },
  ],
  [
    'a wide value',
    (n) => {
      const value = { a: times(n, (i) => ({ i, '-': -0 })) }
      return () => jsonCodec.decode(jsonCodec.encode(value))
    },
  ],
  [
    'an object with many fields',
    (n) => {
      const value = Object.fromEntries(times(n, (i) => [`f${i}`, Number.NaN]))
      return () => jsonCodec.decode(jsonCodec.encode(value))
    },
  ],
  [
    'the payload of a job',
    (n) => {
      const payload = { list: times(n, String), fields: Object.fromEntries(times(n, (i) => [`f${i}`, i])) }
      return () => decodePayload(encodePayload(payload, Number.MAX_SAFE_INTEGER, true))
    },
  ],
  [
    'a work that waits for many',
    (n) => {
      const waitsFor = new Map(times(n, () => [{ waitsFor: undefined } as WaitNode, 1]))
      return () => wouldDeadlock({ waitsFor: undefined }, { waitsFor })
    },
  ],
]

function measured(readings: readonly Reading[], limits?: { from: number; to: number }): void {
  for (const [name, make] of readings) {
    test(name, () => {
      const growth = excessiveGrowth(make, limits)
      assert.equal(growth, undefined, `sixteen times the input takes ${growth} times the work`)
    })
  }
}

describe('linear, the text of a field', () => {
  for (const [reader, read] of Object.entries(READERS)) {
    test(reader, () => {
      const slow = Object.entries(TEXTS).flatMap(([name, text]) => {
        const growth = excessiveGrowth(
          (size) => {
            const value = text(size)
            return () => read(value)
          },
          { from: 2_000, to: 4_000 },
        )
        return growth === undefined ? [] : [`${name}: ${growth}`]
      })
      assert.deepEqual(slow, [], 'sixteen times the text takes so many times the work')
    })
  }
})

describe('linear, fields', () => measured(FIELDS))
describe('linear, messages, values and calls', () => measured(OTHERS, { from: 500, to: 50_000 }))

// A list that is spread into a call takes space on the stack.
test('linear - a response of 300,000 lines, and a work that waits for 300,000', () => {
  const many = 300_000
  const control = new CacheControl([`${'max-age=1,'.repeat(many)}max-age=0`])
  assert.equal(control.seconds('max-age'), 0)
  const expires = times(many, () => new Date(9e12).toUTCString())
  assert.ok((explicitLifetime({ expires }, new CacheControl([])) ?? 0) > 0)
  const waitsFor = new Map(times(many, () => [{ waitsFor: undefined } as WaitNode, 1]))
  assert.ok(!wouldDeadlock({ waitsFor: undefined }, { waitsFor }))
})
