import process from 'node:process'
import { parseArgs } from 'node:util'
import { Redis } from 'ioredis5'
import * as soloflight from '../../src/index.ts'

/** A program that is bundled and minified with the library: what it finds is written as JSON. */
const { values } = parseArgs({ options: { redis: { type: 'string' } }, strict: false })
const redis = `${values['redis']}`
const errors = Object.entries(soloflight).filter(([name]) => name.endsWith('Error'))
const names = errors.map(([name, made]) => {
  const Made = made as new (about: unknown) => Error
  return [name, new Made(name === 'RemoteError' ? { name: 'Error', message: '' } : '').name]
})

let lost = 0
const { subscribe } = await import('node:diagnostics_channel')
subscribe(soloflight.channelName('connection'), (event) => {
  const { link, up } = event as { link: string; up: boolean }
  if (link === 'subscription' && !up) lost++
})
// Its errors take their names from their classes.
const client = new Redis({ path: redis, username: 'user', password: 'right' })
const locker = new soloflight.Locker({ redis: client })
const failure: unknown = await locker
  .run('key', () => Promise.reject(Object.assign(new Error('no'), { name: 'ValidationError' })))
  .catch((error: unknown) => error)
const remote = soloflight.isRemote(failure, 'ValidationError') && failure.name
const late = await locker
  .run('late', () => new Promise((resume) => setTimeout(resume, 300)), { timeout: 50 })
  .catch((error: Error) => error.name)
// Two PINGs of the subscription are refused meanwhile.
await new Promise((resume) => setTimeout(resume, 2_000))
await locker.close()
client.disconnect()
process.stdout.write(JSON.stringify({ names, remote, late, lost }))
