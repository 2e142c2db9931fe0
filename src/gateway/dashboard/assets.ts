import { promisify } from 'node:util'
import { brotliDecompress, constants, gzip } from 'node:zlib'
import type { BuiltAsset } from './built.ts'

export type Encoding = 'br' | 'gzip' | 'identity'

/** A file of the dashboard, in every encoding. */
export interface Asset {
  readonly type: string
  readonly bytes: Readonly<Record<Encoding, Uint8Array>>
}

/** The files of the dashboard by their names. */
export type Assets = ReadonlyMap<string, Asset>

let source = (): Promise<readonly BuiltAsset[]> => import('./built.ts').then(({ BUILT }) => BUILT)
let loaded: Promise<Assets> | undefined

/** Takes the files from elsewhere: sources that are not built are bundled when they are first asked for. */
export function takeAssetsFrom(bundle: () => Promise<readonly BuiltAsset[]>): void {
  source = bundle
  loaded = undefined
}

/** The files of the dashboard, read when they are first asked for. Empty if it was not built. */
export function loadAssets(): Promise<Assets> {
  loaded ??= load()
  return loaded
}

async function load(): Promise<Assets> {
  const built = await source()
  return new Map(await Promise.all(built.map(async (asset) => [asset.name, await unpacked(asset)] as const)))
}

async function unpacked({ type, content }: BuiltAsset): Promise<Asset> {
  const br = Buffer.from(content, 'base64')
  const identity = await promisify(brotliDecompress)(br)
  const zipped = await promisify(gzip)(identity, { level: constants.Z_BEST_COMPRESSION })
  return { type, bytes: { br, gzip: zipped, identity } }
}

/** The smallest encoding that a client accepts. */
export function encodingFor(accepted: string | undefined): Encoding {
  const weights = new Map(
    (accepted ?? '').split(',').map((part) => {
      const [name = '', weight = 'q=1'] = part.split(';').map((each) => each.trim().toLowerCase())
      return [name, Number(weight.replace(/^q=/, ''))] as const
    }),
  )
  return (['br', 'gzip'] as const).find((each) => (weights.get(each) ?? 0) > 0) ?? 'identity'
}
