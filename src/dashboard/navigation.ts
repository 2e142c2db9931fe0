import { Signal } from './data/signal.ts'
import { hrefOf, type Route, routeOf } from './router.ts'

/** The page that is shown. */
export const route = new Signal<Route>(routeOf(location.hash))

window.addEventListener('hashchange', () => {
  route.value = routeOf(location.hash)
})

/** Goes to a page; the one before it is found by the back button. */
export function go(to: Route): void {
  location.hash = hrefOf(to)
}
