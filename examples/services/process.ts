// One of the processes of examples/services.ts: serves prices or reports.
import { Services } from '../../src/index.ts'
import { LEASE, servePrices, serveReports } from './shop.ts'

const { REDIS_URL = '', SERVES } = process.env
const services = new Services({ redis: REDIS_URL, lease: LEASE })
const serve = SERVES === 'prices' ? servePrices : serveReports
await serve(services, `process ${process.pid}`)
process.send?.(`process ${process.pid}`)
// It does not outlive the one that started it.
process.once('disconnect', () => services.close())
