const { Connection, Locker, RemoteError } = require('soloflight')

const redis = process.env.REDIS_URL

test('the globals are those of jsdom', () => {
  expect(navigator.userAgent).toMatch(/jsdom/)
  expect(typeof setTimeout(() => {}, 0)).toBe('number')
})

describe.each([
  ['embedded', () => undefined],
  ['on Redis', () => new Connection(redis)],
])('%s', (name, connect) => {
  let connection
  let locker

  beforeAll(() => {
    connection = connect()
    locker = new Locker(connection ? { redis: connection, prefix: 'jest-jsdom' } : {})
  })
  afterAll(async () => {
    await locker.close({ grace: 0 })
    await connection?.close()
  })

  test('ten callers, one run of the work', async () => {
    const work = jest.fn(async () => ({ name }))
    const call = () => locker.run('report', work, { timeout: 5_000, signal: new AbortController().signal })
    expect(await Promise.all(Array.from({ length: 10 }, call))).toEqual(Array(10).fill({ name }))
    expect(work).toHaveBeenCalledTimes(1)
  })

  test('a failure is a RemoteError', async () => {
    const failing = locker.run('failing', () => Promise.reject(new Error('no')))
    await expect(failing).rejects.toThrow(RemoteError)
  })

  test('a timeout', async () => {
    const never = locker.run('never', () => new Promise(() => {}), { timeout: 20 })
    await expect(never).rejects.toMatchObject({ code: 'E_TIMEOUT' })
  })

  test('binary values', async () => {
    const bytes = await locker.run('bytes', async () => Buffer.from('bytes'))
    expect(Buffer.from(bytes).toString()).toBe('bytes')
  })
})
