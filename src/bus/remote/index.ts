/** The bus of a gateway, in browsers and for programs that do not reach Redis. It imports nothing of Node, nor of Redis. */

export type { WebSocketClass, WebSocketLike } from './link.ts'
export type { RemoteBusOptions } from './options.ts'
export { RemoteQueue } from './queue/remote-queue.ts'
export { RemoteBus, type RemoteBusEvents } from './remote-bus.ts'
export { RemoteChannel } from './remote-channel.ts'
export { RemotePubsub } from './remote-pubsub.ts'
