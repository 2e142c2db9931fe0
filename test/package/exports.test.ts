import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { register } from 'tsx/esm/api'

/** Every subpath with all its names: what other programs are written against. */
const NAMES: Record<string, { values: string[]; types: string[] }> = {
  '.': {
    values: [
      'AbortedError',
      'AlreadyAttachedError',
      'BUS_DEFAULTS',
      'Bus',
      'BusService',
      'BusyError',
      'Channel',
      'ClosedError',
      'CodecError',
      'ConflictError',
      'Connection',
      'DeadlockError',
      'DuplicateHandlerError',
      'DuplicateWorkerError',
      'Job',
      'JsonText',
      'Lease',
      'LeaseLostError',
      'LockTimeoutError',
      'Locker',
      'MemoryBus',
      'MemoryQueueStore',
      'MemoryServices',
      'MemoryStore',
      'NoServiceError',
      'NotAttachedError',
      'NotLockedError',
      'OverloadedError',
      'ProcessLostError',
      'Pubsub',
      'Queue',
      'QueueFullError',
      'RedisQueue',
      'Remote',
      'RemoteError',
      'RemovedError',
      'SERVICES_DEFAULTS',
      'Service',
      'Services',
      'SoloflightError',
      'StreamInterruptedError',
      'TakenJob',
      'TimeoutError',
      'TokenLease',
      'TooLargeError',
      'UnavailableError',
      'UnknownCommandError',
      'UnknownEventError',
      'channelName',
      'isRemote',
      'jsonCodec',
      'jsonTextCodec',
      'logTo',
    ],
    types: [
      'AnyApi',
      'AnyJobs',
      'Api',
      'AttachOptions',
      'Backoff',
      'BackoffFunction',
      'BackoffOptions',
      'BroadcastAnswer',
      'BulkJob',
      'BusEvents',
      'BusOptions',
      'BusServiceEvents',
      'Call',
      'CallOptions',
      'ChannelEvents',
      'ChannelOptions',
      'Choice',
      'Clock',
      'Codec',
      'CommandOf',
      'Conflict',
      'ConnectionOptions',
      'ConsumeOptions',
      'Counts',
      'Disposition',
      'Done',
      'EventStats',
      'FeedEvent',
      'FollowOptions',
      'FollowedChunk',
      'Handler',
      'HandlerOf',
      'InstanceSource',
      'JobEvent',
      'JobMap',
      'JobPage',
      'JobState',
      'JobStatus',
      'LockerOptions',
      'LockerStats',
      'LogEvent',
      'LogLevel',
      'Logger',
      'ManyContext',
      'ManyResults',
      'ManyWork',
      'MemoizeOptions',
      'Memoized',
      'MemoryBusOptions',
      'MemoryQueueStoreOptions',
      'MemoryServicesOptions',
      'MemoryStoreOptions',
      'MessageInfo',
      'OnUnavailable',
      'PayloadOf',
      'Peek',
      'Persisted',
      'PersistedMethods',
      'PostJob',
      'PostJobOptions',
      'PostOptions',
      'ProcessInfo',
      'ProcessOptions',
      'PublishOptions',
      'PubsubEvents',
      'PubsubOptions',
      'PushOptions',
      'QueueEvents',
      'QueueMessage',
      'QueueNamesOptions',
      'QueueOptions',
      'QueueStats',
      'QueueTotals',
      'Ran',
      'RedisClient',
      'RedisClusterClient',
      'RedisServerClient',
      'RedisSource',
      'RegisterOptions',
      'RemoteFailure',
      'Renewal',
      'ReplyFunction',
      'RequestOptions',
      'RequireOptions',
      'ResultCacheOptions',
      'ResultOf',
      'ResultOptions',
      'RetainOptions',
      'Retention',
      'RunManyOptions',
      'RunOptions',
      'RunningJob',
      'ServeOptions',
      'ServiceConnectOptions',
      'ServiceHandler',
      'ServiceLoad',
      'ServiceRequestOptions',
      'ServicesEvents',
      'ServicesOptions',
      'ServicesStats',
      'ServingInfo',
      'SoloflightErrorOptions',
      'StaleOptions',
      'StreamContext',
      'StreamFollowing',
      'StreamOptions',
      'StreamSource',
      'StreamWork',
      'SubmitOptions',
      'TakeOptions',
      'TelemetryEvent',
      'TelemetryEvents',
      'Throttle',
      'Timer',
      'TokenRequestOptions',
      'TopicPosition',
      'WaitOptions',
      'WatchOptions',
      'Work',
      'WorkContext',
    ],
  },
  './locker': {
    values: ['LOCKER_DEFAULTS', 'Lease', 'Locker', 'MemoryStore', 'TokenLease'],
    types: [
      'Counters',
      'Done',
      'FollowOptions',
      'FollowedChunk',
      'LockerOptions',
      'LockerStats',
      'ManyContext',
      'ManyResults',
      'ManyWork',
      'MemoizeOptions',
      'Memoized',
      'MemoryStoreOptions',
      'OnUnavailable',
      'Peek',
      'PublishOptions',
      'RequestOptions',
      'ResultCacheOptions',
      'RunManyOptions',
      'RunOptions',
      'StaleOptions',
      'StreamContext',
      'StreamFollowing',
      'StreamOptions',
      'StreamSource',
      'StreamWork',
      'TokenRequestOptions',
      'WaitOptions',
      'Work',
      'WorkContext',
    ],
  },
  './memoize': {
    values: ['HTTP_CACHE_DEFAULTS', 'HttpCache', 'fromRawHeaders'],
    types: [
      'HttpResponse',
      'HeaderFields',
      'HttpCacheOptions',
      'HttpRequest',
      'Origin',
      'OriginBody',
      'OriginRequest',
      'OriginResponse',
    ],
  },
  './memoize/fetch': {
    values: ['memoizeHandler'],
    types: ['FetchHandler', 'FetchRequest', 'MemoizeHandlerOptions', 'MemoizedFetch'],
  },
  './memoize/node': {
    values: ['memoizeHandler'],
    types: ['Handler', 'MemoizeHandlerOptions', 'MemoizedHandler', 'Middleware', 'Next', 'NodeRequest'],
  },
  './queue': {
    values: [
      'Job',
      'JsonText',
      'MemoryQueueStore',
      'QUEUE_DEFAULTS',
      'RedisQueue',
      'TakenJob',
      'jsonTextCodec',
    ],
    types: [
      'AnyJobs',
      'Backoff',
      'BackoffFunction',
      'BackoffOptions',
      'BulkJob',
      'CommandOf',
      'Conflict',
      'Counts',
      'Disposition',
      'FeedEvent',
      'Handler',
      'HandlerOf',
      'JobEvent',
      'JobMap',
      'JobPage',
      'JobState',
      'JobStatus',
      'LogEvent',
      'MemoryQueueStoreOptions',
      'PayloadOf',
      'PostJob',
      'PostJobOptions',
      'PostOptions',
      'ProcessOptions',
      'QueueEvents',
      'QueueNamesOptions',
      'QueueOptions',
      'QueueStats',
      'QueueTotals',
      'Renewal',
      'ResultOf',
      'ResultOptions',
      'RetainOptions',
      'Retention',
      'RunningJob',
      'SubmitOptions',
      'TakeOptions',
      'WatchOptions',
    ],
  },
  './services': {
    values: ['MemoryServices', 'Remote', 'SERVICES_DEFAULTS', 'Service', 'Services'],
    types: [
      'AnyApi',
      'Api',
      'ArgsOf',
      'BroadcastAnswer',
      'Call',
      'CallOptions',
      'Choice',
      'ChunkOf',
      'EventOf',
      'EventStats',
      'MemoryServicesOptions',
      'ProcessInfo',
      'RegisterOptions',
      'RequireOptions',
      'ResultOf',
      'ServiceHandler',
      'ServiceLoad',
      'ServicesEvents',
      'ServicesOptions',
      'ServicesStats',
      'ServingInfo',
    ],
  },
  './bus': {
    values: ['BUS_DEFAULTS', 'Bus', 'BusService', 'Channel', 'MemoryBus', 'Pubsub', 'Queue'],
    types: [
      'AttachOptions',
      'BusEvents',
      'BusOptions',
      'BusServiceEvents',
      'ChannelEvents',
      'ChannelOptions',
      'ConsumeOptions',
      'InstanceSource',
      'MemoryBusOptions',
      'MessageInfo',
      'Persisted',
      'PersistedMethods',
      'PubsubEvents',
      'PubsubOptions',
      'PushOptions',
      'QueueEvents',
      'QueueMessage',
      'ReplyFunction',
      'ServeOptions',
      'ServiceConnectOptions',
      'ServiceRequestOptions',
      'Throttle',
      'TopicPosition',
    ],
  },
  './gateway': {
    values: ['GATEWAY_DEFAULTS', 'PUSH_WORKER_DEFAULTS', 'createGateway'],
    types: ['AccessToken', 'Gateway', 'GatewayOptions', 'PushWorkerOptions', 'Scope'],
  },
  './gateway/node': {
    values: ['toNodeListener'],
    types: ['NodeListener'],
  },
  './bus/remote': {
    values: ['RemoteBus', 'RemoteChannel', 'RemotePubsub', 'RemoteQueue'],
    types: ['RemoteBusEvents', 'RemoteBusOptions', 'WebSocketClass', 'WebSocketLike'],
  },
  './gateway/ws': {
    values: ['toUpgradeListener'],
    types: ['UpgradeListener'],
  },
  './worker': {
    values: ['HTTP_WORKER_DEFAULTS', 'HttpWorker', 'JsonText'],
    types: [
      'FailFunction',
      'HttpWorkerOptions',
      'HttpWorkerStats',
      'JobContext',
      'LogLevel',
      'Logger',
      'WorkFunction',
    ],
  },
  './kernel': {
    values: ['Connection', 'channelName', 'jsonCodec', 'logTo', 'systemClock'],
    types: [
      'Clock',
      'Codec',
      'ConnectionListener',
      'ConnectionOptions',
      'LogLevel',
      'Logger',
      'RedisClient',
      'RedisClusterClient',
      'RedisServerClient',
      'RedisSource',
      'TelemetryEvent',
      'TelemetryEvents',
      'Timer',
    ],
  },
  './errors': {
    values: [
      'AbortedError',
      'AlreadyAttachedError',
      'BusyError',
      'ClosedError',
      'CodecError',
      'ConflictError',
      'DeadlockError',
      'DuplicateHandlerError',
      'DuplicateWorkerError',
      'LeaseLostError',
      'LockTimeoutError',
      'NoServiceError',
      'NotAttachedError',
      'NotLockedError',
      'OverloadedError',
      'ProcessLostError',
      'QueueFullError',
      'RemoteError',
      'RemovedError',
      'SoloflightError',
      'StreamInterruptedError',
      'TimeoutError',
      'TooLargeError',
      'UnavailableError',
      'UnknownCommandError',
      'UnknownEventError',
      'isRemote',
    ],
    types: ['Ran', 'RemoteFailure', 'SoloflightErrorOptions'],
  },
}

// The entries are imported from their sources.
register()
const root = new URL('../../', import.meta.url)

interface Target {
  types: string
  default: string
}

interface Manifest {
  name: string
  main: string
  types: string
  typesVersions: Record<string, Record<string, string[]>>
  exports: Record<
    string,
    string | { 'module-sync': Target; bun: string; module: string; require: Target; default: Target }
  >
}

async function manifest(): Promise<Manifest> {
  return JSON.parse(await readFile(new URL('package.json', root), 'utf8')) as Manifest
}

/** The source that a subpath is built from. */
function sourceOf({ exports }: Manifest, subpath: string): URL {
  const target = exports[subpath]
  if (typeof target !== 'object') return assert.fail(`${subpath} is no module`)
  const { types, default: file } = target.default
  assert.equal(types, file.replace(/\.js$/, '.d.ts'))
  return new URL(file.replace('./dist/', 'src/').replace(/\.js$/, '.ts'), root)
}

/** Names of types that a source exports, declared there or elsewhere. */
function typesOf(source: string): string[] {
  const lists = Array.from(source.matchAll(/^export (type )?\{([^}]*)\}/gm), ([, all, list = '']) =>
    list
      .split(',')
      .map((name) => name.trim())
      .filter((name) => name !== '' && (all !== undefined || name.startsWith('type ')))
      .map((name) => name.replace(/^type /, '')),
  )
  const declared = Array.from(source.matchAll(/^export (?:interface|type) (\w+)/gm), ([, name = '']) => name)
  return [...lists.flat(), ...declared].sort()
}

test('exports - the subpaths of the package are these', async () => {
  const { exports } = await manifest()
  assert.deepEqual(Object.keys(exports).sort(), [...Object.keys(NAMES), './package.json'].sort())
})

test('exports - only those that know none of `module-sync`, `bun` and `module` take the CommonJS build', async () => {
  const { exports, main, types, typesVersions } = await manifest()
  const places: Record<string, string[]> = {}
  for (const [subpath, target] of Object.entries(exports)) {
    if (typeof target === 'string') continue
    const esm = target.default
    const cjs = {
      types: esm.types.replace('./dist/', './dist/cjs/'),
      default: esm.default.replace('./dist/', './dist/cjs/'),
    }
    // The first that is known is taken: in Node `require` gives the same module as `import`.
    assert.deepEqual(Object.entries(target), [
      ['module-sync', esm],
      ['bun', esm.default],
      ['module', esm.default],
      ['require', cjs],
      ['default', esm],
    ])
    if (subpath === '.') assert.deepEqual([main, types], [cjs.default, cjs.types])
    else places[subpath.slice(2)] = [cjs.types]
  }
  // For `moduleResolution: node10`, which knows no `exports`.
  assert.deepEqual(typesVersions, { '*': places })
})

for (const [subpath, { values, types }] of Object.entries(NAMES)) {
  test(`exports - soloflight${subpath.slice(1)} exports these names and no others`, async () => {
    const url = sourceOf(await manifest(), subpath)
    const found: object = await import(url.href)
    assert.deepEqual(Object.keys(found).sort(), [...values].sort())
    const source = await readFile(url, 'utf8')
    assert.deepEqual(typesOf(source), [...types].sort())
    assert.doesNotMatch(source, /export \*|export default/)
  })
}

test('exports - every error has its own stable code, its name and its key', async () => {
  const { isRemote: _, ...errors } = await import('../../src/errors.ts')
  const codes: Record<string, string> = {
    SoloflightError: 'E_SOLOFLIGHT',
    TimeoutError: 'E_TIMEOUT',
    AbortedError: 'E_ABORTED',
    ClosedError: 'E_CLOSED',
    UnavailableError: 'E_UNAVAILABLE',
    NotLockedError: 'E_NOT_LOCKED',
    LeaseLostError: 'E_LEASE_LOST',
    LockTimeoutError: 'E_LOCK_TIMEOUT',
    CodecError: 'E_CODEC',
    OverloadedError: 'E_OVERLOADED',
    DeadlockError: 'E_DEADLOCK',
    DuplicateWorkerError: 'E_DUPLICATE_WORKER',
    RemoteError: 'E_REMOTE',
    RemovedError: 'E_REMOVED',
    ConflictError: 'E_CONFLICT',
    UnknownCommandError: 'E_UNKNOWN_COMMAND',
    StreamInterruptedError: 'E_STREAM_INTERRUPTED',
    TooLargeError: 'E_TOO_LARGE',
    NoServiceError: 'E_NO_SERVICE',
    BusyError: 'E_BUSY',
    UnknownEventError: 'E_UNKNOWN_EVENT',
    ProcessLostError: 'E_PROCESS_LOST',
    DuplicateHandlerError: 'E_DUPLICATE_HANDLER',
    QueueFullError: 'E_QUEUE_FULL',
    NotAttachedError: 'E_NOT_ATTACHED',
    AlreadyAttachedError: 'E_ALREADY_ATTACHED',
  }
  assert.deepEqual(Object.keys(codes).sort(), Object.keys(errors).sort())
  const { RemoteError, SoloflightError } = await import('../../src/errors.ts')
  for (const [name, make] of Object.entries(errors)) {
    const Made = make as unknown as new (first: unknown, options: { key: string; cause: unknown }) => Error
    const first = name === 'RemoteError' ? { name: 'Error', message: 'said' } : 'said'
    const error = new Made(first, { key: 'key', cause: 'why' })
    assert.ok(
      error instanceof SoloflightError && error instanceof Error,
      'error instanceof SoloflightError && error instanceof Error',
    )
    assert.deepEqual(
      [error.name, error.code, error.key, error.message, error.cause],
      [name, codes[name], 'key', 'said', 'why'],
    )
  }
  const nested = new RemoteError({ name: 'A', message: 'a', cause: { name: 'B', message: 'b' } })
  assert.ok(
    nested.cause instanceof RemoteError && nested.cause.message === 'b',
    'nested.cause instanceof RemoteError && nested.cause.message  …',
  )
})

test('exports - importing the package does nothing: no timer, no socket, no listener', async () => {
  const { spawnSync } = await import('node:child_process')
  const script = `
    const before = process.listenerCount('exit') + process.listenerCount('uncaughtException')
    await import(${JSON.stringify(new URL('src/index.ts', root).href)})
    const active = process.getActiveResourcesInfo().filter((name) => name !== 'PipeWrap' && name !== 'TTYWrap')
    const after = process.listenerCount('exit') + process.listenerCount('uncaughtException')
    console.log(JSON.stringify([active.filter((name) => /Timeout|TCP|Immediate/.test(name)), after - before]))`
  const args = ['--import', import.meta.resolve('tsx'), '--input-type=module', '-e', script]
  const { stdout, status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 20_000 })
  assert.equal(status, 0, stderr)
  assert.equal(stdout.trim(), '[[],0]')
})
