/** The kernel: what all layers stand on. */

export type { RedisClient, RedisClusterClient, RedisServerClient, RedisSource } from './client.ts'
export { type Clock, systemClock, type Timer } from './clock.ts'
export { type Codec, jsonCodec } from './codec.ts'
export { Connection, type ConnectionListener, type ConnectionOptions } from './connection.ts'
export { channelName, type TelemetryEvent, type TelemetryEvents } from './telemetry.ts'
