import assert from 'node:assert/strict'
import type { LookupAddress } from 'node:dns'
import { test } from 'node:test'
import { isInternal, lookupPublic } from '../../../src/gateway/push/addresses.ts'

const INTERNAL = [
  ...['0.0.0.0', '0.1.2.3', '10.0.0.1', '100.64.0.1', '100.127.255.255', '127.0.0.1', '127.255.255.254'],
  ...['169.254.169.254', '172.16.0.1', '172.31.255.255', '192.0.0.8', '192.168.255.255', '198.18.0.1'],
  ...['198.19.255.255', '224.0.0.1', '239.1.1.1', '240.0.0.1', '255.255.255.255', '203.0.113.9'],
  ...['::', '::1', '::7f00:1', '::ffff:127.0.0.1', '::ffff:a00:1', '::ffff:8.8.8.8', 'fe80::1', 'fe80::1%lo'],
  ...['fc00::1', 'fd00:ec2::254', 'fec0::1', 'ff02::1', '100::1', '2001::1', '2001:db8::1', '2002:7f00:1::1'],
  ...['64:ff9b::127.0.0.1', '64:ff9b::a9fe:a9fe', '64:ff9b::10.1.2.3', '64:ff9b:1::8.8.8.8', '4000::1'],
  ...['', 'localhost', '1.2.3', '0x7f.1', '127.1'],
]

const PUBLIC = [
  ...['1.1.1.1', '9.255.255.255', '11.0.0.0', '100.63.255.255', '100.128.0.0', '128.0.0.1', '169.253.0.1'],
  ...['172.15.255.255', '172.32.0.0', '192.167.0.1', '198.17.0.1', '223.255.255.255'],
  ...['2606:4700::1111', '2a00:1450::1', '64:ff9b::8.8.8.8', '2001:4860:4860::8888'],
]

test('push - addresses of the public internet are told from all others', () => {
  for (const address of INTERNAL) assert.equal(isInternal(address), true, address)
  for (const address of PUBLIC) assert.equal(isInternal(address), false, address)
})

function lookedUp(name: string, all: boolean): Promise<string | LookupAddress[] | Error> {
  return new Promise((resolve) => lookupPublic(name, { all }, (error, found) => resolve(error ?? found)))
}

test('push - a name is resolved to public addresses only', async () => {
  for (const all of [true, false]) {
    const refused = await lookedUp('localhost', all)
    assert.ok(refused instanceof Error && 'code' in refused && refused.code === 'E_INTERNAL_ADDRESS')
    const unknown = await lookedUp('host.invalid', all)
    assert.ok(unknown instanceof Error && 'code' in unknown && unknown.code !== 'E_INTERNAL_ADDRESS')
  }
  // The digits of an address are its resolution.
  assert.equal(await lookedUp('1.1.1.1', false), '1.1.1.1')
  assert.deepEqual(await lookedUp('1.1.1.1', true), [{ address: '1.1.1.1', family: 4 }])
})
