/** WebSockets of a gateway on node:http, by the package ws. */

export { toUpgradeListener, type UpgradeListener } from './upgrade.ts'
