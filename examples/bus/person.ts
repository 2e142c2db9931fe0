// One of the processes of examples/chat.ts.
import { Bus } from '../../src/index.ts'
import { PEOPLE } from './people.ts'

const { REDIS_URL = '', PERSON = '' } = process.env
const bus = new Bus({ redis: REDIS_URL })
await PEOPLE[PERSON]?.(bus)
await bus.disconnect()
