#!/bin/sh
# A worker in curl: takes numbers from a queue under a lease, and finishes each with its square.
#
#   TOKEN=secret examples/worker.sh http://127.0.0.1:5000/q/squares

headers=$(mktemp)
trap 'rm -f "$headers"' EXIT

request() { curl -sS --fail -H "Authorization: Bearer $TOKEN" "$@"; }

while :; do
  # Until there is a job, at most 20 s. Then it is ours for 30 s.
  job=$(request -D "$headers" "$1?lease=30&wait=20") || { sleep 1; continue; }
  lease=$(awk 'tolower($1) == "x-lease:" { print $2 }' "$headers" | tr -d '\r')
  case $job in
    '' | *[!0-9]*) request -X PUT -H "X-Lease: $lease" -d '"not a whole number"' "$1?failed" ;;
    *) request -X PUT -H "X-Lease: $lease" -d "$((job * job))" "$1" ;;
  esac
done
