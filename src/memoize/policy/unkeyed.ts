import type { HeaderFields, HttpRequest } from '../engine/message.ts'
import type { ResolvedHttpOptions } from '../engine/options.ts'
import { primaryKeyOf } from './key.ts'

/** Fields by which proxies state the client or its request, and on which frameworks act. */
const FORWARDING_FIELDS: readonly string[] = [
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

/** Fields by which frameworks replace the method of a request. */
const METHOD_OVERRIDE_FIELDS: readonly string[] = [
  'x-http-method',
  'x-http-method-override',
  'x-method-override',
]

/** Whether a framework may replace the method of a request. */
export function overridesMethod(headers: HeaderFields): boolean {
  return METHOD_OVERRIDE_FIELDS.some((name) => headers[name] !== undefined)
}

const UNKEYED_FIELDS: readonly string[] = [...FORWARDING_FIELDS, ...METHOD_OVERRIDE_FIELDS]

/** The fields of these lists that a request has and that neither `vary` nor its key covers. */
export function unkeyedFields(request: HttpRequest, options: ResolvedHttpOptions): string[] {
  const { headers } = request
  const present = UNKEYED_FIELDS.filter((name) => headers[name] !== undefined && !options.vary.includes(name))
  if (present.length === 0) return present
  const key = primaryKeyOf(request, options)
  return present.filter((name) => {
    const { [name]: _, ...others } = headers
    return primaryKeyOf({ ...request, headers: others }, options) === key
  })
}
