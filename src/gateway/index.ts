/** The HTTP gateway: jobs, keys, streams, services and the bus for programs in any language, and the dashboard. */

export { createGateway, type Gateway } from './gateway.ts'
export { type AccessToken, GATEWAY_DEFAULTS, type GatewayOptions, type Scope } from './options.ts'
export { PUSH_WORKER_DEFAULTS, type PushWorkerOptions } from './push/options.ts'
