import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { temporaryFolder } from './lifeline.ts'

/** A certificate that has signed itself, as PEM. */
export interface Certificate {
  readonly key: string
  readonly cert: string
  /** Where `cert` is, for NODE_EXTRA_CA_CERTS. */
  readonly file: string
}

/** Makes a certificate for a name by `openssl`, valid for a day. */
export async function certificateFor(name: string): Promise<Certificate> {
  const folder = await temporaryFolder()
  const [keyFile, file] = [join(folder, 'key.pem'), join(folder, 'cert.pem')]
  await promisify(execFile)('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
    ...['-days', '1', '-subj', `/CN=${name}`, '-addext', `subjectAltName=DNS:${name}`],
    ...['-keyout', keyFile, '-out', file],
  ])
  return { key: await readFile(keyFile, 'utf8'), cert: await readFile(file, 'utf8'), file }
}
