/** A sentence that says why something waits. The names in it stand in backticks. */
export function Why({ text }: { text: string }) {
  return (
    <span class="why">
      {text.split('`').map((part, index) =>
        index % 2 === 0 ? (
          part
        ) : (
          // The parts have no other
          <code key={index}>
            <bdi>{part}</bdi>
          </code>
        ),
      )}
    </span>
  )
}
