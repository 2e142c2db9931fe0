// Run once before the tests, so that they find what they need.
import { findRedisServer } from '../../support/binary.ts'
import { findChromium } from '../../support/chromium.ts'

try {
  await findRedisServer()
  await findChromium()
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}
