import { on, once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Bus } from '../../src/index.ts'

/** What each person does, by name. */
export const PEOPLE: Record<string, (bus: Bus) => Promise<void>> = { Ann: beAnn, Bob: beBob }

/** Ann stays, writes to Bob wherever he is, and ends the chat. */
async function beAnn(bus: Bus): Promise<void> {
  const chat = bus.channel<string, string>('chat')
  chat.on('message', (text) => console.log(`Ann reads: ${text}`))
  const comings = on(chat, 'remote:connect')
  await chat.connect()
  await comings.next()
  const left = once(chat, 'remote:disconnect')
  await chat.send('hello Bob')
  await left
  console.log('Ann sees that Bob has left, and goes on writing')
  await chat.send('are you there?')
  await chat.send('I have written twice')
  await comings.next()
  await chat.send('good night')
  // It is the last message: Bob gets it after the others.
  await chat.end()
}

/** Bob answers, leaves, comes back, and stays until the end. */
async function beBob(bus: Bus): Promise<void> {
  const chat = bus.channel<string, string>('chat')
  chat.on('message', (text) => console.log(`Bob reads: ${text}`))
  const hello = once(chat, 'message')
  await chat.listen()
  await hello
  await chat.send('hello Ann')
  console.log('Bob leaves')
  await chat.disconnect()
  await sleep(500)
  console.log('Bob comes back')
  const end = once(chat, 'end')
  await chat.listen()
  await end
  console.log('Bob sees that Ann has ended it')
}
