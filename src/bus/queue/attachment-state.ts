import type { Transitions } from '../../kernel/collections.ts'

/**
 * The states of an attachment.
 *
 * detached    not attached
 * attaching   looks for the queue, or makes it
 * attached    renews its lease
 * recovering  the instance does not know the attachment: finds out why
 * detaching   tells the instance
 *
 * | event                    | detached  | attaching | attached   | recovering | detaching |
 * | ------------------------ | --------- | --------- | ---------- | ---------- | --------- |
 * | attach                   | attaching |           |            |            |           |
 * | the queue is found, made |           | attached  |            |            |           |
 * | an error                 |           | detached  |            | attached   |           |
 * | a reply: not attached    |           |           | recovering |            |           |
 * | the queue was remade     |           |           |            | attached   |           |
 * | expired or closed        |           |           | detached   | detached   |           |
 * | detach                   |           |           | detaching  | detaching  |           |
 * | the reply, or an error   |           |           |            |            | detached  |
 */
export type AttachmentState = 'detached' | 'attaching' | 'attached' | 'recovering' | 'detaching'

export const ATTACHMENT_TRANSITIONS: Transitions<AttachmentState> = {
  detached: ['attaching'],
  attaching: ['attached', 'detached'],
  attached: ['recovering', 'detaching', 'detached'],
  recovering: ['attached', 'detaching', 'detached'],
  detaching: ['detached'],
}
