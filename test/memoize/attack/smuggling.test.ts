// Request smuggling: bytes that two parsers read as different requests. Node's parser reads them here, and the cache gets its
// result: nothing of the attacker's connection may be in the response on another connection. See "HTTP Desync Attacks" (Kettle, 2019) and RFC 9112 §6.3, §9.

import { attacks, type Row } from '../../support/attack-scene.ts'

const PAGE = { status: 200, has: 'GET /page of shop.example for nobody', lacks: 'evil' }
const HEAD = 'GET /page HTTP/1.1\r\nHost: shop.example\r\n'
const POST = 'POST /page HTTP/1.1\r\nHost: shop.example\r\n'
const EVIL = 'GET /page HTTP/1.1\r\nHost: shop.example\r\nX-Auth: evil\r\nConnection: close\r\n\r\n'
const CHUNKED = `0\r\n\r\n${EVIL}`

/** The bytes that are sent, and whether the server may accept them. */
const FORMS: Record<string, string> = {
  'CL.TE': `${POST}Content-Length: ${CHUNKED.length}\r\nTransfer-Encoding: chunked\r\n\r\n${CHUNKED}`,
  'TE.CL': `${POST}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n${EVIL.length.toString(16)}\r\n${EVIL}\r\n0\r\n\r\n`,
  'CL.TE on GET': `${HEAD}Content-Length: ${CHUNKED.length}\r\nTransfer-Encoding: chunked\r\n\r\n${CHUNKED}`,
  'CL.0': `${POST}Content-Length: 0\r\n\r\n${EVIL}`,
  'two Content-Length': `${POST}Content-Length: 0\r\nContent-Length: ${EVIL.length}\r\n\r\n${EVIL}`,
  'two Content-Length, the same': `${POST}Content-Length: 1\r\nContent-Length: 1\r\n\r\nx${EVIL}`,
  'a list as Content-Length': `${POST}Content-Length: 0, ${EVIL.length}\r\n\r\n${EVIL}`,
  'a sign before Content-Length': `${POST}Content-Length: +0\r\n\r\n${EVIL}`,
  'a negative Content-Length': `${POST}Content-Length: -1\r\n\r\n${EVIL}`,
  'a hexadecimal Content-Length': `${POST}Content-Length: 0x0\r\n\r\n${EVIL}`,
  'an empty Content-Length': `${POST}Content-Length:\r\n\r\n${EVIL}`,
  'a Content-Length of a blank': `${POST}Content-Length: 0 0\r\n\r\n${EVIL}`,
  'a huge Content-Length': `${POST}Content-Length: 18446744073709551616\r\n\r\n${EVIL}`,
  'a blank before the colon': `${POST}Transfer-Encoding : chunked\r\n\r\n${CHUNKED}`,
  'a tab before the colon': `${POST}Transfer-Encoding\t: chunked\r\n\r\n${CHUNKED}`,
  'a tab after the colon': `${POST}Transfer-Encoding:\tchunked\r\n\r\n${CHUNKED}`,
  'a vertical tab': `${POST}Transfer-Encoding: \x0bchunked\r\n\r\n${CHUNKED}`,
  'a coding that nobody knows': `${POST}Transfer-Encoding: xchunked\r\n\r\n${CHUNKED}`,
  'chunked, and then another': `${POST}Transfer-Encoding: chunked, identity\r\n\r\n${CHUNKED}`,
  'chunked twice': `${POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n${CHUNKED}`,
  'chunked in quotes': `${POST}Transfer-Encoding: "chunked"\r\n\r\n${CHUNKED}`,
  'a folded line': `${POST}X: y\r\n Transfer-Encoding: chunked\r\n\r\n${CHUNKED}`,
  'a folded value': `${POST}Transfer-Encoding:\r\n chunked\r\n\r\n${CHUNKED}`,
  'a folded name': `${POST}Transfer-\r\n Encoding: chunked\r\n\r\n${CHUNKED}`,
  'bare LF': `${HEAD.replaceAll('\r\n', '\n')}X-Auth: evil\nConnection: close\n\n`,
  'bare LF in the middle': `${HEAD}X: y\nX-Auth: evil\r\nConnection: close\r\n\r\n`,
  'bare CR': `${HEAD}X: y\rX-Auth: evil\r\nConnection: close\r\n\r\n`,
  'a NUL in a field': `${HEAD}X: y\0X-Auth: evil\r\nConnection: close\r\n\r\n`,
  'a NUL in the URL': 'GET /page\0evil HTTP/1.1\r\nHost: shop.example\r\n\r\n',
  'a blank in the URL': 'GET /page evil HTTP/1.1\r\nHost: shop.example\r\n\r\n',
  'a CR in the URL': 'GET /page\revil HTTP/1.1\r\nHost: shop.example\r\n\r\n',
  'a chunk extension': `${POST}Transfer-Encoding: chunked\r\n\r\n1;evil=\r\nx\r\n${CHUNKED}`,
  'a chunk extension with LF': `${POST}Transfer-Encoding: chunked\r\n\r\n1;evil\nx\r\n${CHUNKED}`,
  'a chunk extension in quotes': `${POST}Transfer-Encoding: chunked\r\n\r\n1;a="\r\n"\r\nx\r\n${CHUNKED}`,
  'a chunk with a sign': `${POST}Transfer-Encoding: chunked\r\n\r\n+1\r\nx\r\n${CHUNKED}`,
  'a chunk in hexadecimal with 0x': `${POST}Transfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n${CHUNKED}`,
  'a chunk of more than it says': `${POST}Transfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n${CHUNKED}`,
  'chunks that end by LF': `${POST}Transfer-Encoding: chunked\r\n\r\n0\n\n${EVIL}`,
  'a trailer': `${POST}Transfer-Encoding: chunked\r\n\r\n0\r\nX-Auth: evil\r\nHost: evil\r\n\r\n`,
  'a trailer on GET': `${HEAD}Transfer-Encoding: chunked\r\n\r\n0\r\nX-Auth: evil\r\n\r\n`,
  'a body on GET that is a request': `${HEAD}Content-Length: ${EVIL.length}\r\n\r\n${EVIL}`,
  'a body on HEAD that is a request': `${HEAD.replace('GET', 'HEAD')}Content-Length: ${EVIL.length}\r\n\r\n${EVIL}`,
  'a body that is cut short': `${HEAD}Content-Length: 99\r\n\r\nevil`,
  'a head that never ends': `${HEAD}X-Auth: evil\r\n`,
  'HTTP/0.9': 'GET /page\r\n',
  'HTTP/1.0 with chunks': `${POST.replace('1.1', '1.0')}Transfer-Encoding: chunked\r\n\r\n${CHUNKED}`,
  'the preface of HTTP/2': 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
  'an Upgrade to h2c': `${HEAD}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n`,
  'an Expect, and no body': `${POST}Expect: 100-continue\r\nContent-Length: 9\r\n\r\n`,
  'blank lines before a request': `\r\n\r\n\r\n${EVIL}`,
  'a field without a colon': `${HEAD}X-Auth evil\r\nConnection: close\r\n\r\n`,
  'a field without a name': `${HEAD}: evil\r\nConnection: close\r\n\r\n`,
}

/** By Vary, the attacker's field is part of the key. */
const ROWS = Object.entries(FORMS).map(
  ([attack, bytes]): Row => ({
    attack,
    sends: bytes,
    asks: 'GET /page',
    gets: PAGE,
    options: { vary: ['x-auth'] },
  }),
)

attacks('smuggling', ROWS)
