import { z } from 'zod'
import type { Route } from './routes/route.ts'

// The description of the routes in OpenAPI 3.1, made from the table by which they are dispatched and checked.

/** JSON that stands for itself. */
type Json = Record<string, unknown>

const PROBLEM: Json = {
  type: 'object',
  required: ['type', 'title', 'status', 'error'],
  properties: {
    type: { type: 'string', description: 'A URN that names the kind of problem.' },
    title: { type: 'string' },
    status: { type: 'integer' },
    error: { type: 'string', description: 'A short text that does not change.' },
    detail: { type: 'string' },
    id: { type: 'string', description: 'The job that it concerns.' },
    failure: { type: 'object', description: 'Why the job, the computation or the call failed.' },
    ran: { enum: ['no', 'maybe', 'yes'], description: 'Whether the handler of a service has run.' },
  },
}

/** Answers that every route may give. */
const COMMON_ANSWERS: Readonly<Record<number, string>> = {
  400: 'The request is invalid.',
  401: 'A token is needed.',
  403: 'The token lacks the scope, or a page of another origin sent the request.',
  421: 'The host is not one of ours.',
  503: 'Redis does not answer, the gateway is overloaded, or it is closing.',
}

/** Names in paths. */
const PATH_NAMES: Readonly<Record<string, string>> = {
  queue: 'Name of a queue.',
  id: 'Id of a job.',
  action: '`cancel`, `retry` or `remove`.',
  key: 'Key of a lock or of a stream.',
  service: 'Name of a service.',
  event: 'Name of an event of the service.',
  topic: 'Name of a topic of the bus.',
}

/** The OpenAPI document of these routes, which are below `basePath`. */
export function openApiOf(routes: readonly Route[], basePath: string): Json {
  const paths: Record<string, Json> = {}
  for (const route of routes) {
    if (route.summary === undefined) continue
    const path = documentedPath(route)
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: operationOf(route) }
  }
  return {
    openapi: '3.1.0',
    info: { title: 'soloflight', version: '1', description: 'Jobs, keys and messages over HTTP.' },
    servers: [{ url: basePath === '' ? '/' : basePath }],
    paths,
    components: {
      securitySchemes: { token: { type: 'http', scheme: 'bearer' } },
      schemas: { Problem: PROBLEM },
    },
  }
}

/** The first path of a route, as '/q/{queue}'. */
export function documentedPath({ path }: Route): string {
  return String([path].flat()[0]).replace(/:(\w+)/g, '{$1}')
}

function operationOf(route: Route): Json {
  const { summary, scope, answers, body } = route
  return {
    summary,
    ...(scope === 'public' ? {} : { security: [{ token: [] }], 'x-scope': scope }),
    parameters: parametersOf(route),
    ...(body && {
      requestBody: {
        description: body.description,
        required: body.required ?? false,
        content: { 'application/json': { schema: body.schema ? jsonSchemaOf(body.schema) : {} } },
      },
    }),
    responses: Object.fromEntries(
      Object.entries(answersOf(route, answers)).map(([status, description]) => [
        status,
        { description, ...(Number(status) >= 400 && { content: PROBLEM_CONTENT }) },
      ]),
    ),
  }
}

const PROBLEM_CONTENT: Json = {
  'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } },
}

/** All answers of a route: a sentence each, by status. */
export function answersOf(
  { scope }: Route,
  answers: Route['answers'] = { 200: 'It was done.' },
): Readonly<Record<number, string>> {
  return scope === 'public' ? answers : { ...COMMON_ANSWERS, ...answers }
}

/** A parameter of the path, of the query or of the headers. */
export interface ParameterDescription {
  readonly name: string
  readonly in: 'path' | 'query' | 'header'
  readonly description: string
  readonly required: boolean
  readonly schema: Json
}

export function parametersOf(route: Route): readonly ParameterDescription[] {
  const inPath = [...documentedPath(route).matchAll(/\{(\w+)\}/g)].map(([, name = '']) => ({
    name,
    in: 'path' as const,
    description: PATH_NAMES[name] ?? '',
    required: true,
    schema: { type: 'string' },
  }))
  const properties = (jsonSchemaOf(route.query)['properties'] ?? {}) as Record<string, Json>
  const inQuery = Object.entries(properties).map(([name, { description = '', ...schema }]) => ({
    name,
    in: 'query' as const,
    description: String(description),
    required: false,
    schema,
  }))
  const inHeaders = Object.entries(route.headers ?? {}).map(([name, description]) => ({
    name,
    in: 'header' as const,
    description,
    required: false,
    schema: { type: 'string' },
  }))
  return [...inPath, ...inQuery, ...inHeaders]
}

/** A member of a message. */
export interface MemberDescription {
  readonly name: string
  /** What it may be: 'text', 'a whole number', … */
  readonly form: string
  readonly isRequired: boolean
}

/** The members that an object of this schema has when a client sends it. */
export function membersOf(schema: z.ZodType): readonly MemberDescription[] {
  const { properties = {}, required = [] } = jsonSchemaOf(schema) as ObjectSchema
  return Object.entries(properties).map(([name, member]) => ({
    name,
    form: formOf(member),
    isRequired: required.includes(name),
  }))
}

/** The part of JSON Schema that the schemas of messages use. */
interface ObjectSchema {
  readonly properties?: Readonly<Record<string, MemberSchema>>
  readonly required?: readonly string[]
}

interface MemberSchema {
  /** What the schema calls it: 'a duration', for instance. */
  readonly title?: string
  readonly type?: string | readonly string[]
  readonly enum?: readonly string[]
  readonly anyOf?: readonly MemberSchema[]
  readonly items?: MemberSchema
  readonly properties?: Readonly<Record<string, MemberSchema>>
  readonly minimum?: number
  readonly maximum?: number
}

const FORMS: Readonly<Record<string, string>> = {
  string: 'text',
  integer: 'a whole number',
  number: 'a number',
  boolean: 'true or false',
  object: 'an object',
}

function formOf(schema: MemberSchema): string {
  if (schema.title !== undefined) return schema.title
  if (schema.anyOf) return schema.anyOf.map(formOf).join(' or ')
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(' or ')
  if (schema.type === 'array') return `an array, each ${formOf(schema.items ?? {})}`
  if (schema.properties) return `{ ${Object.keys(schema.properties).join(', ')} }`
  const forms = [schema.type ?? []].flat().map((type) => FORMS[type])
  return forms.length === 0 ? 'any JSON' : `${forms.join(' or ')}${boundsOf(schema)}`
}

/** The bounds of a number, unless they are those of all whole numbers. */
function boundsOf({
  minimum = Number.MIN_SAFE_INTEGER,
  maximum = Number.MAX_SAFE_INTEGER,
}: MemberSchema): string {
  const from = minimum === Number.MIN_SAFE_INTEGER ? '' : ` from ${minimum}`
  return `${from}${maximum === Number.MAX_SAFE_INTEGER ? '' : ` to ${maximum}`}`
}

/** What a client sends: of a parameter, the text. */
function jsonSchemaOf(schema: z.ZodType): Json {
  const { $schema, ...described } = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' })
  return described
}
