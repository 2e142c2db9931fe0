/** The kernel, which all layers use. */

export { type Codec, jsonCodec } from './codec/codec.ts'
export { type Logger, type LogLevel, logTo } from './logging.ts'
export type { RedisClient, RedisClusterClient, RedisServerClient, RedisSource } from './redis/client.ts'
export { Connection, type ConnectionListener, type ConnectionOptions } from './redis/connection.ts'
export { channelName, type TelemetryEvent, type TelemetryEvents } from './telemetry.ts'
export { type Clock, systemClock, type Timer } from './time.ts'
