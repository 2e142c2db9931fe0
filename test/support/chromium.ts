import { mayInstall, onPath } from './binary.ts'
import { installProgram } from './install.ts'

/**
 * The path of Chromium: what `CHROMIUM` names, or one that is on the PATH. On Debian and Ubuntu, where there is none and root
 * asks, it is installed, unless `SOLOFLIGHT_NO_INSTALL` is set.
 */
export async function findChromium(): Promise<string> {
  const named = process.env['CHROMIUM']
  if (named) {
    const path = onPath(named)
    if (path) return path
    throw new Error(`CHROMIUM names ${named}, which is not a program that can be run`)
  }
  const found = ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome'].map(onPath)
  const path = found.find((each) => each !== undefined)
  if (path !== undefined) return path
  if (mayInstall()) {
    await installProgram('chromium')
    const installed = onPath('chromium')
    if (installed !== undefined) return installed
  }
  throw new Error('No Chromium: install it (Debian: apt-get install chromium), or let CHROMIUM name one')
}
