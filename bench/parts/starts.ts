import { atMost, heading, table } from '../report.ts'
import { interleaved } from '../rounds.ts'
import { endChildren, forkChildren, open, type Stage } from '../stage.ts'
import { sum } from '../statistics.ts'

/** How long each work waits for I/O, ms. */
const WAITS = 20

/** In a server that is busy a turn of the event loop takes so long, ms. */
const TURN = 2

const LAYERS = { embedded: 'memory', Redis: 'both' } as const
type Place = keyof typeof LAYERS

interface Scene {
  place: Place
  count: number
  turn: number
}

const SCENES: readonly Scene[] = (['embedded', 'Redis'] as const).flatMap((place) => [
  { place, count: 1_000, turn: 0 },
  { place, count: 500, turn: TURN },
  { place, count: 1_000, turn: TURN },
])

/** Cold keys whose works wait for I/O, all asked for in one tick: how long it takes until all works have started. */
export async function starts(stage: Stage): Promise<void> {
  const rounds = stage.quick ? 3 : 8
  heading(`starts: cold keys in one tick, one process, ${WAITS} ms of I/O per work, ${rounds} rounds`)
  const places = ['embedded', 'Redis'] as const
  const children = await forkChildren(places.length)
  const crew = new Map(places.map((place, index) => [place, children[index]] as const))
  const start = async ({ place, count, turn }: Scene, round: number | string) => {
    const burst = await crew
      .get(place)
      ?.call('starts', 'soloflight', `starts:${count}:${turn}:${round}`, count, WAITS, turn)
    if (!burst) throw new Error(`${place} has no process`)
    return burst
  }
  try {
    for (const [place, child] of crew) {
      if (child) await open(child, 'soloflight', stage, [LAYERS[place]], { prefix: 'starts' })
    }
    // Until it is compiled.
    for (let round = 0; round < (stage.quick ? 1 : 10); round++) {
      for (const scene of SCENES) await start(scene, `warm:${round}`)
    }
    const results = await interleaved(SCENES, rounds, start)
    const over = (scene: Scene) => results.median(scene, ({ startedOver }) => startedOver)
    table(
      ['cold works', 'turns, ms', 'first to last start, ms', 'last answer, ms', 'lost', 'wrong'],
      SCENES.map((scene) => [
        `${scene.count}, ${scene.place}`,
        scene.turn === 0 ? 'idle' : scene.turn,
        over(scene).toFixed(1),
        results.median(scene, ({ latencies }) => Math.max(...latencies)).toFixed(0),
        sum(results.values(scene, ({ lost }) => lost)),
        sum(results.values(scene, ({ wrong }) => wrong)),
      ]),
    )
    for (const scene of SCENES) {
      const loop = scene.turn === 0 ? 'an idle loop' : `a loop of ${scene.turn} ms turns`
      const [limit, goal] = scene.turn === 0 ? [40, 20] : [100, 40]
      const what = `${scene.count} cold I/O works, ${scene.place}, first to last start in ${loop}`
      atMost(what, over(scene), limit, { unit: ' ms', digits: 0, goal })
    }
  } finally {
    await endChildren(children)
  }
}
