#!/bin/sh
# Makes the data directory of one release, as its own binary leaves it after a kill: a checkpoint, and a log that goes on behind it.
# usage: make.sh BINARY NAME      writes NAME.tar.zst and NAME.json beside this file; needs curl, zstd
set -eu
binary=$1 name=$2 here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d) port=7911
trap 'kill -9 $server 2>/dev/null || true; rm -rf "$scratch"' EXIT
url=http://127.0.0.1:$port

start() {
    "$binary" serve --data "$scratch/data" --listen "127.0.0.1:$port" --log warn >/dev/null &
    server=$!
    until curl -fs "$url/readyz" >/dev/null; do sleep 0.1; done
}
post() { curl -fsS "$url/v1/$1" -d "$2" -o "${3:-/dev/null}"; }
outcome() {
    id=$(sed 's/.*"id":"\([^"]*\)".*/\1/' "$scratch/job") token=$(sed 's/.*"lease_token":\([0-9]*\).*/\1/' "$scratch/job")
    post outcomes "{\"worker\":\"w\",\"outcomes\":[{\"queue\":\"mail\",\"id\":\"$id\",\"lease_token\":$token,$1}]}"
}
fetch() { post fetch '{"worker":"w","queues":["mail"],"lease_ms":3600000}' "$scratch/job"; }

start
curl -fsS -X PATCH "$url/v1/queues/mail" -d '{"attempts":2,"backoff":"fixed:1h"}' >/dev/null
for number in 1 2 3 4 5 6; do post queues/mail/jobs "{\"id\":\"m$number\",\"body\":{\"number\":$number},\"priority\":$number,\"tags\":[\"t$number\"]}"; done
post queues/mail/jobs '{"id":"later","body":[1,2],"delay_ms":360000000}'
post queues/mail/jobs '{"id":"only","body":"ü","unique":{"key":"k","ttl_ms":360000000}}'
fetch && outcome '"outcome":"done","result":{"sent":true}'
fetch && outcome '"outcome":"fail","error":{"kind":"Bounce","message":"no such user"}'
kill -TERM $server && wait $server
start
fetch && outcome '"outcome":"retry","error":{"kind":"Busy","message":"later"}'
fetch
post queues/mail/jobs/m6/cancel '{"reason":"no longer needed"}'
post push '{"jobs":[{"queue":"other","id":"o1","body":null},{"queue":"other","id":"o2","body":{"big":"'"$(head -c 3000 /dev/zero | tr '\0' x)"'"}}]}'
curl -fsS -X POST "$url/v1/queues/other/pause" >/dev/null
for queue in mail other; do
    for id in $(curl -fsS "$url/v1/queues/$queue/jobs" | grep -o '"id":"[^"]*"' | cut -d'"' -f4); do curl -fsS "$url/v1/queues/$queue/jobs/$id"; echo; done
done >"$here/$name.json"
kill -9 $server
tar -C "$scratch" -c data | zstd -q -19 -f -o "$here/$name.tar.zst"
