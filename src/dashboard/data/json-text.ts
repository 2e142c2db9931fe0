// JSON that is shown as it was posted: `JSON.parse` would make 1 of 1.0, and lose digits of long numbers.

/** Brackets, separators, white space, and strings end a number or a word. */
const AFTER_WORD = /[\s[\]{},:"]|$/g

/** The tokens of JSON, and where each begins. */
function* tokensOf(text: string): Generator<{ token: string; index: number }> {
  for (let index = 0; index < text.length; ) {
    const end = endOfToken(text, index)
    const token = text.slice(index, end)
    if (token.trim() !== '') yield { token, index }
    index = end
  }
}

function endOfToken(text: string, start: number): number {
  const first = text.charAt(start)
  if (first === '"') return endOfString(text, start)
  AFTER_WORD.lastIndex = start
  return Math.max(start + 1, AFTER_WORD.exec(text)?.index ?? text.length)
}

function endOfString(text: string, start: number): number {
  let at = start + 1
  while (at < text.length && text.charAt(at) !== '"') at += text.charAt(at) === '\\' ? 2 : 1
  return at + 1
}

/** The texts of the members of a JSON object, as they stand in it. */
export function memberTexts(text: string): Map<string, string> {
  const members = new Map<string, string>()
  let depth = 0
  let name: string | undefined
  let start = -1
  let end = -1
  for (const { token, index } of tokensOf(text)) {
    if (depth === 1 && name !== undefined && start < 0 && token !== ':') start = index
    if (token === '}' || token === ']') depth--
    const closes = depth === 0 || (depth === 1 && token === ',')
    if (closes && name !== undefined && start >= 0) {
      members.set(name, text.slice(start, end))
      name = undefined
      start = -1
    } else if (depth === 1 && name === undefined && token.startsWith('"')) {
      name = JSON.parse(token) as string
    }
    if (token === '{' || token === '[') depth++
    end = index + token.length
  }
  return members
}

/** JSON with one member or element on a line. Only white space between tokens is changed. */
export function indented(text: string): string {
  let depth = 0
  let before = ''
  const parts: string[] = []
  const newLine = () => parts.push('\n', '  '.repeat(Math.min(depth, 40)))
  for (const { token } of tokensOf(text)) {
    const opened = before === '{' || before === '['
    if (token === '}' || token === ']') {
      depth--
      if (!opened) newLine()
    } else if (opened || before === ',') newLine()
    parts.push(token === ':' ? ': ' : token)
    if (token === '{' || token === '[') depth++
    before = token
  }
  return parts.join('')
}
