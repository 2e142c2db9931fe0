/** A worker of an HTTP gateway: takes its jobs with `fetch`, without Redis. */

export { JsonText } from '../kernel/codec/json-text.ts'
export type { Logger, LogLevel } from '../kernel/logging.ts'
export type { JobContext } from './context.ts'
export { HttpWorker, type HttpWorkerStats } from './http-worker.ts'
export {
  type FailFunction,
  HTTP_WORKER_DEFAULTS,
  type HttpWorkerOptions,
  type WorkFunction,
} from './options.ts'
