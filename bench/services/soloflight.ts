import { libraryPart } from '../library.ts'
import type { Payload } from '../queues/payload.ts'
import { type OpenServices, TIMEOUT } from './services.ts'

type Sums = { add: (payload: Payload) => number }

export const open: OpenServices = async (redis, { serves, calls }, answer) => {
  const { Services } = await libraryPart('services/index')
  const services = new Services({ redis })
  for (const name of serves) {
    const service = await services.register<Sums>(name)
    service.on('add', (payload) => answer(payload))
  }
  for (const name of calls) await services.require<Sums>(name, { timeout: TIMEOUT }).ready()
  return {
    call: (name, payload) => services.require<Sums>(name, { timeout: TIMEOUT }).emit('add', payload),
  }
}
