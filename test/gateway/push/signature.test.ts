import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseSecret, signaturesOf } from '../../../src/gateway/push/signature.ts'

// The example of the reference implementations of Standard Webhooks.
const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
const MESSAGE = {
  id: 'msg_p5jXN8AQM9LWM0D4loKWxJek',
  timestamp: 1614265330,
  body: Buffer.from('{"test": 2432232314}'),
}
const SIGNATURE = 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='

test('push - a signature is that of Standard Webhooks', () => {
  const key = parseSecret(SECRET) ?? assert.fail()
  assert.equal(signaturesOf([key], MESSAGE), SIGNATURE)
})

test('push - each secret makes a signature, in their order', () => {
  const key = parseSecret(SECRET) ?? assert.fail()
  const other = parseSecret(`whsec_${Buffer.alloc(64, 7).toString('base64')}`) ?? assert.fail()
  const [first, second, ...rest] = signaturesOf([other, key], MESSAGE).split(' ')
  assert.deepEqual([second, rest], [SIGNATURE, []])
  assert.match(first ?? '', /^v1,[\w+/]{43}=$/)
  assert.notEqual(first, SIGNATURE)
})

test('push - a secret is whsec_ and base64 of 24 to 64 bytes', () => {
  const of = (bytes: number) => `whsec_${Buffer.alloc(bytes, 1).toString('base64')}`
  for (const bytes of [24, 25, 32, 64]) assert.equal(parseSecret(of(bytes))?.length, bytes, `${bytes}`)
  for (const text of [of(23), of(65), of(0), of(32).slice(6), `${of(32)} `, `whsec_${'!'.repeat(44)}`, ''])
    assert.equal(parseSecret(text), undefined, text)
  // Bits that no byte has.
  assert.equal(parseSecret(of(25).replace('Q==', 'R==')), undefined)
})
