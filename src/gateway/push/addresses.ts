import { type LookupAddress, lookup } from 'node:dns'
import { BlockList, isIP, type LookupFunction } from 'node:net'

// Which addresses a push worker may dial: those of the public internet. IANA's registries of special-purpose addresses.

/** IPv4: this network, private, shared (CGNAT), loopback, link-local, protocols, documentation, relay, benchmarks, multicast, reserved. */
const INTERNAL_V4: readonly (readonly [string, number])[] = [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
]

/** IPv6: protocols and Teredo, documentation, 6to4, documentation. */
const INTERNAL_V6: readonly (readonly [string, number])[] = [
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['3fff::', 20],
]

/** The prefix by which NAT64 reaches IPv4 addresses. */
const NAT64 = '64:ff9b::'
const NAT64_BITS = 96

const internal = new BlockList()
for (const [net, bits] of INTERNAL_V4) {
  internal.addSubnet(net, bits, 'ipv4')
  internal.addSubnet(`${NAT64}${net}`, NAT64_BITS + bits, 'ipv6')
}
for (const [net, bits] of INTERNAL_V6) internal.addSubnet(net, bits, 'ipv6')

/** All other IPv6 addresses are local, or are other notations of IPv4 addresses. */
const global = new BlockList()
global.addSubnet('2000::', 3, 'ipv6')
global.addSubnet(NAT64, NAT64_BITS, 'ipv6')

/** Whether an address is not one of the public internet. A text that is no address is internal. */
export function isInternal(address: string): boolean {
  const [bare = ''] = address.split('%', 1)
  const family = isIP(bare)
  if (family === 4) return internal.check(bare, 'ipv4')
  return family !== 6 || !global.check(bare, 'ipv6') || internal.check(bare, 'ipv6')
}

/** A host name has no address that may be dialled. */
export class InternalAddressError extends Error {
  override readonly name = 'InternalAddressError'
  readonly code = 'E_INTERNAL_ADDRESS'

  constructor() {
    super('The name of the host has internal addresses only: `allowInternal` allows them')
  }
}

/**
 * Resolves a name for a connection, to the public ones of its addresses. It is asked when a connection is dialled, and only
 * what it returns is: an address that the name gets later is checked again.
 */
export const lookupPublic: LookupFunction = (hostname, options, callback) => {
  lookup(hostname, { ...options, all: true }, (error, found: LookupAddress[]) => {
    if (error) return callback(error, [])
    const addresses = found.filter(({ address }) => !isInternal(address))
    const [first] = addresses
    if (!first) return callback(new InternalAddressError(), [])
    if (options.all) callback(null, addresses)
    else callback(null, first.address, first.family)
  })
}
