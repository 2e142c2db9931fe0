import type { HeaderFields, HttpRequest } from '../engine/message.ts'
import type { ResolvedHttpOptions } from '../engine/options.ts'
import { keyOf } from './key.ts'

/** Fields by which proxies tell, and frameworks take for true, who a client is, and where it believes to be. */
const FORWARDED: readonly string[] = [
  'cf-connecting-ip',
  'cf-pseudo-ipv4',
  'cf-visitor',
  'client-ip',
  'cloudfront-forwarded-proto',
  'fastly-client-ip',
  'fly-client-ip',
  'forwarded',
  'forwarded-for',
  'front-end-https',
  'true-client-ip',
  'x-appengine-user-ip',
  'x-azure-clientip',
  'x-client-ip',
  'x-cluster-client-ip',
  'x-envoy-external-address',
  'x-forwarded',
  'x-forwarded-by',
  'x-forwarded-client-cert',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-path',
  'x-forwarded-port',
  'x-forwarded-prefix',
  'x-forwarded-proto',
  'x-forwarded-protocol',
  'x-forwarded-scheme',
  'x-forwarded-server',
  'x-forwarded-ssl',
  'x-forwarded-uri',
  'x-forwarded-user',
  'x-host',
  'x-http-host-override',
  'x-original-forwarded-for',
  'x-original-host',
  'x-original-uri',
  'x-original-url',
  'x-real-ip',
  'x-remote-user',
  'x-rewrite-url',
  'x-scheme',
  'x-url-scheme',
]

/** Fields that make another method of a request. */
const OVERRIDES: readonly string[] = ['x-http-method', 'x-http-method-override', 'x-method-override']

/** Whether a request may be taken for one of another method than its own. */
export function overridesMethod(headers: HeaderFields): boolean {
  return OVERRIDES.some((name) => headers[name] !== undefined)
}

const UNKEYED: readonly string[] = [...FORWARDED, ...OVERRIDES]

/** The fields of these lists that a request has, and by which its response is not kept: neither `vary` nor the key knows them. */
export function unkeyedFields(request: HttpRequest, options: ResolvedHttpOptions): string[] {
  const { headers } = request
  const present = UNKEYED.filter((name) => headers[name] !== undefined && !options.vary.includes(name))
  if (present.length === 0) return present
  const key = keyOf(request, options)
  return present.filter((name) => {
    const { [name]: _, ...others } = headers
    return keyOf({ ...request, headers: others }, options) === key
  })
}
