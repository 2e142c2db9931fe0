/** What producer and worker have in common: the commands of their queue. */
export type Reports = {
  report: (order: { run: string; month: number }) => string
}

export const QUEUE = 'reports'
