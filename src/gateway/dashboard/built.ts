/** A file of the dashboard, as the build has made it. */
export interface BuiltAsset {
  /** With a digest of its content, unless it is the page. */
  readonly name: string
  readonly type: string
  /** Compressed by Brotli, in base64. */
  readonly content: string
}

/** The files of the dashboard. Empty here: `npm run build` replaces this module by one that has them. */
export const BUILT: readonly BuiltAsset[] = []
