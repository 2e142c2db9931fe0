import type { BuiltAsset } from './assets.ts'

/** The files of the dashboard. Empty here: `npm run build` replaces this module by one that has them. */
export const BUILT: readonly BuiltAsset[] = []
