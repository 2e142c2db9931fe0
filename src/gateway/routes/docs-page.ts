import { html } from 'hono/html'
import { answersOf, documentedPath, type MemberDescription, membersOf, parametersOf } from '../openapi.ts'
import type { MessageType } from '../ws/message.ts'
import type { Route } from './route.ts'

type Html = ReturnType<typeof html>

/** The page `/docs`: the routes, and the messages of WebSockets. It has no script and no style, and any browser can read it. */
export async function docsPage(
  routes: readonly Route[],
  messages: readonly MessageType[],
  basePath: string,
): Promise<string> {
  const shown = routes.filter(({ summary }) => summary !== undefined)
  const page = html`<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark"><title>Routes of soloflight</title></head>
<body>
<h1>Routes</h1>
<p>Also as <a href="${basePath}/openapi.json">OpenAPI 3.1</a>. Durations are seconds, or have a unit: <code>30</code>, <code>500ms</code>. Errors are <code>application/problem+json</code>. <a href="#messages">Messages of WebSockets</a> are below.</p>
${shown.map((each) => routeSection(each, basePath))}
<h1 id="messages">Messages of <code>${basePath}/ws</code></h1>
<p>A message is JSON: <code>{ id, type, … }</code>, with the members that are named below. <code>id</code> is a text or a whole number that the client chooses. The answer is <code>{ id, ok }</code>, or <code>{ id, problem }</code> with the members of a problem and <code>code</code>. What comes for a subscription is <code>{ sub, … }</code>: <code>sub</code> is the id of the message that began it.</p>
${messages.map(messageSection)}
</body>
</html>`
  return String(await page)
}

function routeSection(described: Route, basePath: string): Html {
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

function messageSection({ type, summary, scope, schema }: MessageType): Html {
  const scopes = [scope].flat().map((each, at) => html`${at === 0 ? '' : ' or '}<code>${each}</code>`)
  return html`<h2 id="message-${type}"><code>${type}</code></h2>
<p>${summary} Scope: ${scopes}.</p>
<dl>${membersOf(schema).map(memberRow)}</dl>
`
}

function memberRow({ name, form, isRequired }: MemberDescription): Html {
  return html`<dt><code>${name}</code></dt><dd>${form}${isRequired ? '' : ', optional'}</dd>
`
}
