// @vitest-environment jsdom

import { expect, test } from 'vitest'
import { checkSoloflight } from './soloflight.js'

test('the globals are those of jsdom', () => {
  expect(navigator.userAgent).toMatch(/jsdom/)
})

checkSoloflight('jsdom')
