import type { Gateway } from '../../src/gateway/index.ts'
/** TEMPORARY: events and jobs lists until the routes land. */
export function withEvents(gateway: Gateway): Gateway {
  return {
    ...gateway,
    ready: () => gateway.ready(),
    close: (o) => gateway.close(o),
    [Symbol.asyncDispose]: () => gateway.close(),
    fetch: async (request, bindings) => {
      const url = new URL(request.url)
      if (url.pathname.endsWith('/overview/events')) {
        const again = () => gateway.fetch(new Request(request.url.replace('/events', ''), { headers: request.headers }), bindings)
        const first = await again()
        if (!first.ok) return first
        let timer: ReturnType<typeof setInterval>
        const body = new ReadableStream({
          start(c) {
            const send = async (r?: Response) => {
              const t = await (r ?? (await again())).text()
              try { c.enqueue(new TextEncoder().encode(`event: overview\ndata: ${t}\n\n`)) } catch { clearInterval(timer) }
            }
            void send(first)
            timer = setInterval(() => void send(), 1000)
          },
          cancel() { clearInterval(timer) },
        })
        return new Response(body, { headers: { 'content-type': 'text/event-stream' } })
      }
      return gateway.fetch(request, bindings)
    },
  }
}
