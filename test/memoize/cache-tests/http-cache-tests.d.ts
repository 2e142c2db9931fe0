// The public suite comes without types.

declare module 'http-cache-tests/tests/index.mjs' {
  export interface CacheTest {
    id: string
    name: string
    /** 'required' when absent. */
    kind?: 'required' | 'optimal' | 'check'
    /** Only for caches in browsers. */
    browser_only?: boolean
    depends_on?: string[]
    requests: object[]
  }
  const suites: { id: string; name: string; tests: CacheTest[] }[]
  export default suites
}

declare module 'http-cache-tests/client/runner.mjs' {
  /** Runs a hundred tests at a time against what listens at `base`. */
  export function runTests(
    suites: unknown,
    fetch: unknown,
    browserCache: boolean,
    base: string,
  ): Promise<void>
  /** By the id of a test: true, or what kind of failure it was, and how. */
  export function getResults(): Record<string, true | [kind: string, message: string]>
}

declare module 'http-cache-tests/client/test.mjs' {
  import type { CacheTest } from 'http-cache-tests/tests/index.mjs'
  /** Runs one test. Its result must not be there yet. */
  export function makeCacheTest(test: CacheTest): Promise<void>
  /** The id of the last run of a test in addresses, by the id of the test. */
  export const testUUIDs: Record<string, string>
  /** By the id of a test, as `getResults` returns them. */
  export const testResults: Record<string, true | [kind: string, message: string]>
}
