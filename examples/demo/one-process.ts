import { join } from 'node:path'
import { Locker, type RunOptions, type WorkContext } from '../../src/index.ts'
import type { Found } from './folder.ts'
import { digestOf, makeReport } from './report.ts'
import { fact, passing, showFolder, showReport, tally, time, title } from './show.ts'
import { failureOf, reasonOf, Stop } from './stop.ts'

const CALLERS = 100

/** Many callers in one process, on the embedded locker: no Redis. */
export async function inOneProcess(folder: string, found: Found): Promise<void> {
  await using locker = new Locker()
  let computations = 0
  let computing = 0

  const ask = (folder: string, options?: RunOptions) => {
    const work = async ({ signal, progress }: WorkContext) => {
      computations++
      const began = performance.now()
      const onStep = (done: number, total: number) => progress(`computing, step ${done} of ${total}`)
      const report = await makeReport(folder, { signal, onStep })
      computing = performance.now() - began
      return report
    }
    return locker.run(`report:${folder}`, work, options)
  }
  const callers = Array.from({ length: CALLERS }, (_, index) => index)

  title(`${CALLERS} callers, one computation`)
  showFolder(folder, found)
  fact('callers', `${CALLERS} in this process ask for the same report at the same moment`)

  const began = performance.now()
  const watching = { onProgress: (step: unknown) => passing(String(step)) }
  const answers = callers.map((caller) => ask(folder, caller === 0 ? watching : undefined))
  const reports = await Promise.all(answers).catch((error) => {
    throw new Stop(reasonOf(error))
  })
  const took = performance.now() - began
  passing('')

  const late = performance.now()
  const report = await ask(folder)
  const wait = performance.now() - late
  showReport(report)
  fact('computations', `${computations}`)
  fact('received', tally(reports.map((report) => `report ${digestOf(report)}`)))
  fact('took', `${time(took)}, where ${CALLERS} computations take ${time(CALLERS * computing)}`)
  fact('saved', time((CALLERS - 1) * computing))
  fact('late caller', `report ${digestOf(report)} after ${time(wait)}, out of the cache`)

  if (computations !== 1) throw new Stop(`expected 1 computation, got ${computations}`)

  computations = 0
  const failures = callers.map(() => ask(join(folder, 'no-such-folder')).then(() => 'no error', failureOf))
  fact('a failure', `${tally(await Promise.all(failures))}; attempts: ${computations}`)
  console.log('\nNext: npm start -- --redis redis://localhost:6379 (several processes), examples/README.md\n')
}
