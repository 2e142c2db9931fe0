import type { Transitions } from '../../kernel/collections.ts'

/**
 * subscribing  looks for the topic, listens there, and asks for the number of its last message
 * live         everything up to the last message has been delivered, as far as is known
 * resuming     messages may have been missed: asks for them
 * down         the subscription of the connection is lost
 * ended
 *
 * | event                                        | subscribing | live     | resuming       | down     |
 * | -------------------------------------------- | ----------- | -------- | -------------- | -------- |
 * | up: asks (again) what was missed             | subscribing | resuming | resuming       | resuming |
 * | the next message, or one that was delivered  | buffered    | live     | resuming       | down     |
 * | a message of another life, or after a jump: buffered | subscribing | resuming | resuming | down   |
 * | a number that came before comes again        | buffered    | resuming | resuming       | down     |
 * | what was missed is known                     | live        |          | live           |          |
| messages are missing that may be under way   |             |          | resuming, asks after a pause | |
 * | it cannot be asked                           | ended       |          | resuming, asks after a pause | |
 * | down                                         | subscribing | down     | down           |          |
 * | the topic is at another instance             |             | down     | down           |          |
 * | unsubscribe, disconnect                      | ended       | ended    | ended          | ended    |
 *
 * The next message is delivered in every state that knows the number of the last one: nothing can be missing before it.
 */
export type SubscriptionState = 'subscribing' | 'live' | 'resuming' | 'down' | 'ended'

export const SUBSCRIPTION_TRANSITIONS: Transitions<SubscriptionState> = {
  subscribing: ['live', 'ended'],
  live: ['resuming', 'down', 'ended'],
  resuming: ['live', 'down', 'ended'],
  down: ['resuming', 'ended'],
  ended: [],
}
