/** The bus of a gateway, in browsers and for programs that do not reach Redis. It imports nothing of Node, nor of Redis. */

export type { WebSocketClass, WebSocketLike } from './link.ts'
export { RemoteBus, type RemoteBusEvents, type RemoteBusOptions } from './remote-bus.ts'
export { RemoteChannel, type RemoteChannelOptions } from './remote-channel.ts'
export { RemotePubsub } from './remote-pubsub.ts'
export { type RemoteConsumeOptions, RemoteQueue } from './remote-queue.ts'
