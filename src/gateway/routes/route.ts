import { z } from 'zod'
import type { Effect, RequiredScope } from '../access.ts'
import type { GatewayDeps } from '../deps.ts'
import type { RouteContext } from '../env.ts'
import type { Answer } from '../http/answer.ts'
import type { Parameters, ParameterValues } from '../http/parameters.ts'

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'

/** A row of the table of routes: what a route needs, does and is given. Dispatch, access and /openapi.json follow from it. */
export interface Route {
  readonly method: Method
  /** As '/q/:queue'. Several are the same route. */
  readonly path: string | readonly string[]
  readonly scope: RequiredScope
  readonly effect: Effect
  /** What it does, as the audit event says: without one it has no such event. */
  readonly action?: string | undefined
  /** One sentence. A route without one is not described. */
  readonly summary?: string | undefined
  /** The schema of its query. */
  readonly query: z.ZodType
  /** Its headers beside those that every route has: name and description. */
  readonly headers?: Readonly<Record<string, string>> | undefined
  readonly body?: BodyDescription | undefined
  /** Its answers by status: a sentence each. Those that every route may give need not be there. */
  readonly answers?: Readonly<Record<number, string>> | undefined
  readonly handle: RouteHandler<ParameterValues<Parameters>>
}

export interface BodyDescription {
  readonly description: string
  /** Absent: any JSON. */
  readonly schema?: z.ZodType | undefined
  readonly required?: boolean | undefined
}

export type RouteHandler<Query> = (
  context: RouteContext,
  deps: GatewayDeps,
  query: Query,
) => Answer | Promise<Answer>

interface RouteDeclaration<P extends Parameters> extends Omit<Route, 'query' | 'handle'> {
  readonly query?: P
  readonly handle: RouteHandler<ParameterValues<P>>
}

/** Declares a route. Its handler is given the parameters that `query` names, and no request with others. */
export function route<const P extends Parameters>({ query, handle, ...rest }: RouteDeclaration<P>): Route {
  return {
    ...rest,
    query: z.strictObject(query ?? {}),
    handle: handle as RouteHandler<ParameterValues<Parameters>>,
  }
}
