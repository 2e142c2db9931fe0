// The public suite comes without types.

declare module 'http-cache-tests/tests/index.mjs' {
  interface CacheTest {
    id: string
    name: string
    /** 'required' when absent. */
    kind?: 'required' | 'optimal' | 'check'
    /** Only for caches in browsers. */
    browser_only?: boolean
    depends_on?: string[]
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
