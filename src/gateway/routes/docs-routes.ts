import { html } from 'hono/html'
import type { GatewayDeps } from '../deps.ts'
import { Answer, jsonAnswer } from '../http/answer.ts'
import { answersOf, documentedPath, openApiOf, parametersOf } from '../openapi.ts'
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
      summary: 'The routes as a page.',
      handle: async (_c, deps) =>
        new Answer(
          200,
          {
            'content-type': 'text/html; charset=utf-8',
            'content-security-policy': "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
          },
          await pageOf(described, deps),
        ),
    }),
  ]
}

/** A page without a script and without a style, readable by any browser. */
async function pageOf(routes: readonly Route[], { options }: GatewayDeps): Promise<string> {
  const shown = routes.filter(({ summary }) => summary !== undefined)
  const page = html`<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark"><title>Routes of soloflight</title></head>
<body>
<h1>Routes</h1>
<p>Also as <a href="${options.basePath}/openapi.json">OpenAPI 3.1</a>. Durations are seconds, or have a unit: <code>30</code>, <code>500ms</code>. Errors are <code>application/problem+json</code>.</p>
${shown.map((each) => sectionOf(each, options.basePath))}
</body>
</html>`
  return String(await page)
}

function sectionOf(described: Route, basePath: string): ReturnType<typeof html> {
  const { method, summary, scope, body, answers } = described
  return html`<h2><code>${method} ${basePath}${documentedPath(described)}</code></h2>
<p>${summary} Scope: <code>${scope}</code>.</p>
${body ? html`<p>Body: ${body.description}</p>` : ''}
<dl>${parametersOf(described).map(
    ({ name, in: place, description }) => html`<dt><code>${name}</code> (${place})</dt><dd>${description}</dd>
`,
  )}${Object.entries(answersOf(described, answers)).map(
    ([status, description]) => html`<dt>${status}</dt><dd>${description}</dd>
`,
  )}</dl>
`
}
