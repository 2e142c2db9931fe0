// A child that fails at its start.

export {}

throw new Error('It does not start')
