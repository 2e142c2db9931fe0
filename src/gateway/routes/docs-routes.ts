import { Answer, jsonAnswer } from '../http/answer.ts'
import { openApiOf } from '../openapi.ts'
import { MESSAGE_TYPES } from '../ws/messages/index.ts'
import { docsPage } from './docs-page.ts'
import { type Route, route } from './route.ts'

/** The description of these routes: `/openapi.json` for programs, `/docs` for people. It says nothing of jobs, so it is public. */
export function docsRoutes(described: readonly Route[]): readonly Route[] {
  return [
    route({
      method: 'GET',
      path: '/openapi.json',
      scope: 'public',
      effect: 'reads',
      summary: 'The routes in OpenAPI 3.1.',
      handle: (_c, { options }) => jsonAnswer(200, JSON.stringify(openApiOf(described, options.basePath))),
    }),
    route({
      method: 'GET',
      path: '/docs',
      scope: 'public',
      effect: 'reads',
      summary: 'The routes, and the messages of WebSockets, as a page.',
      handle: async (_c, { options }) =>
        new Answer(
          200,
          {
            'content-type': 'text/html; charset=utf-8',
            'content-security-policy': "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
          },
          await docsPage(described, MESSAGE_TYPES, options.basePath),
        ),
    }),
  ]
}
