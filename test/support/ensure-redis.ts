// Run once before the test files start, so that they find a server and do not wait for one to be installed.
import { findRedisServer } from './binary.ts'

try {
  await findRedisServer()
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}
