import { BlockList, isIPv6 } from 'node:net'
import { Bus } from '../bus/index.ts'
import type { Gateway, GatewayOptions } from '../gateway/index.ts'
import type { UpgradeListener } from '../gateway/ws/index.ts'
import { messageOf } from '../kernel/codec/codec.ts'
import { systemClock } from '../kernel/time.ts'
import { writeAudit } from './audit.ts'
import { FAILED, report, UsageError } from './failure.ts'
import { GatewayServer } from './gateway-server.ts'
import { pushesOf } from './push-settings.ts'
import { hostNameOf, type Settings } from './settings.ts'

/** What the gateway needs besides the dependencies of the package. */
const PEERS = 'hono @hono/node-server zod'

const LOCAL_HOSTS = ['localhost', '127.0.0.1', '[::1]']

/** npm passes a signal of the terminal on, so that the process receives the same one twice. */
const SAME_SIGNAL_MS = 100

/** Serves until SIGTERM or SIGINT, and resolves when all is closed. @throws UsageError */
export async function serve(settings: Settings): Promise<void> {
  const { host, port, redis, drain, grace, audit, basePath = '' } = settings
  checkAddress(settings)
  const stopped = stopSignal()
  const stopAudit = audit && writeAudit(audit)
  const { createGateway, toNodeListener } = await loadGateway()
  const bus = created(() => busOf(settings))
  const gateway = created(() => createGateway({ ...gatewayOptions(settings), bus }))
  const listeners = { request: toNodeListener(gateway), upgrade: await upgradeListener(gateway) }
  const server = await GatewayServer.start(gateway, listeners, { host, port }, report)
  const place = redis === undefined ? 'embedded, without Redis' : `on ${withoutSecrets(redis)}`
  process.stdout.write(`soloflight serves ${server.url}${basePath}, ${place}\n`)
  await stopped
  await server.close({ drain, grace })
  await bus?.disconnect()
  if (stopAudit) stopAudit()
}

/** Only this machine reaches a loopback address. @throws UsageError */
function checkAddress({ host, token }: Settings): void {
  if (token.length > 0 || isLoopback(host)) return
  throw new UsageError(
    `Anyone who reaches ${host} could take and change jobs: give a token by --token-file or --token, or listen on --host 127.0.0.1`,
  )
}

const LOOPBACK = new BlockList()
LOOPBACK.addSubnet('127.0.0.0', 8)
LOOPBACK.addAddress('::1', 'ipv6')

function isLoopback(host: string): boolean {
  return host === 'localhost' || LOOPBACK.check(host, isIPv6(host) ? 'ipv6' : 'ipv4')
}

/** The gateway and its adapter, with their peers. @throws UsageError if these are not installed */
async function loadGateway(): Promise<GatewayModules> {
  try {
    const [gateway, node] = await Promise.all([import('../gateway/index.ts'), import('../gateway/node.ts')])
    return { ...gateway, ...node }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    const isMissing =
      code === 'ERR_MODULE_NOT_FOUND' && /package '(hono|zod|@hono\/node-server)'/.test(message)
    if (!isMissing) throw error
    throw new UsageError(`\`soloflight serve\` needs three more packages: npm install ${PEERS}`)
  }
}

type GatewayModules = typeof import('../gateway/index.ts') & typeof import('../gateway/node.ts')

/** Undefined without the package ws: then there are no WebSockets. */
async function upgradeListener(gateway: Gateway): Promise<UpgradeListener | undefined> {
  try {
    const { toUpgradeListener } = await import('../gateway/ws/index.ts')
    return toUpgradeListener(gateway)
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'ERR_MODULE_NOT_FOUND' && message.includes("package 'ws'")) return undefined
    throw error
  }
}

/** The bus on instances of its own. Undefined: the gateway makes one on its own Redis. */
function busOf({ bus, prefix }: Settings): Bus | undefined {
  return bus && new Bus({ redis: bus, ...(prefix !== undefined && { prefix }) })
}

/** What the gateway and the bus refuse, they were told here. */
function created<T>(create: () => T): T {
  try {
    return create()
  } catch (error) {
    throw error instanceof TypeError ? new UsageError(messageOf(error)) : error
  }
}

function gatewayOptions(settings: Settings): GatewayOptions {
  const { redis, prefix, token, host, allowHost = [], basePath, maxBody, maxWait, dashboard } = settings
  const { maxStreams, maxSockets, heartbeat, attempts } = settings
  return {
    // Not undefined, which warns that the process works alone.
    redis: redis ?? null,
    ...(prefix !== undefined && { prefix }),
    ...(token.length > 0 && { tokens: token }),
    hosts: [...LOCAL_HOSTS, hostNameOf(host) ?? [], allowHost].flat(),
    ...(basePath !== undefined && { basePath }),
    ...(maxBody !== undefined && { maxBody }),
    ...(maxWait !== undefined && { maxWait }),
    ...(maxStreams !== undefined && { maxStreams }),
    ...(maxSockets !== undefined && { maxSockets }),
    ...(heartbeat !== undefined && { heartbeat }),
    ...(attempts !== undefined && { queueOptions: { attempts } }),
    dashboard,
    push: pushesOf(settings),
  }
}

/** The URL of a Redis without user, password and parameters, which may hold a password too. */
function withoutSecrets(redis: string): string {
  if (!URL.canParse(redis)) return 'Redis'
  const { protocol, host, pathname } = new URL(redis)
  return `${protocol}//${host}${pathname}`
}

/** Resolves at the first SIGTERM or SIGINT. A second one ends the process at once. */
function stopSignal(): Promise<void> {
  return new Promise((resolve) => {
    let first: { signal: NodeJS.Signals; at: number } | undefined
    const heard = (signal: NodeJS.Signals) => {
      const now = systemClock.now()
      if (first === undefined) {
        first = { signal, at: now }
        resolve()
      } else if (signal !== first.signal || now - first.at > SAME_SIGNAL_MS) process.exit(FAILED)
    }
    process.on('SIGTERM', heard)
    process.on('SIGINT', heard)
  })
}
