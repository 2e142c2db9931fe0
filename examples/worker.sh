#!/bin/sh
# A worker in curl: takes numbers from a queue under a lease, and finishes each with its square. SIGTERM ends it after its job.
#
#   TOKEN=secret examples/worker.sh http://127.0.0.1:5000/q/squares

# The token and the lease are secrets: arguments could be seen by everybody on the machine.
request() {
  printf 'header = "Authorization: Bearer %s"\nheader = "X-Lease: %s"\n' "$TOKEN" "$lease" |
    curl -K - -sS --fail --max-time 60 "$@"
}

trap stop=1 TERM INT
while [ -z "$stop" ]; do
  lease=
  # Until there is a job, at most 10 s. Then it is ours for 30 s.
  answer=$(request -i "$1?lease=30&wait=10")
  lease=$(printf '%s\n' "$answer" | tr -d '\r' | awk '$0 == "" { exit } tolower($1) == "x-lease:" { print $2 }')
  [ -n "$lease" ] || { sleep 1; continue; }
  job=$(printf '%s\n' "$answer" | tr -d '\r' | sed '1,/^$/d')
  # An end that is told again, because its answer was lost, counts once.
  case $job in
    '' | *[!0-9]*) request --retry 5 -X PUT -d '"not a whole number"' "$1?failed" ;;
    *) request --retry 5 -X PUT -d "$((job * job))" "$1" ;;
  esac
done
