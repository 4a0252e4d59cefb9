#!/usr/bin/env bash
# The API by curl alone: every form of a request, every kind of answer, each checked.
# Arguments: the farm's URL, an admin key, an empty folder, an ffmpeg, an address for webhooks.
set -euo pipefail
url=$1 key=$2 folder=$3 ffmpeg=$4 hook=$5
cd "$folder"

ask() { curl -sS -H "Authorization: Bearer $key" "$@"; }

field() { # of the JSON on stdin: field spec.width
  python3 -c 'import functools, json, sys
answer = json.load(sys.stdin)
try:
    value = functools.reduce(lambda got, name: got[name], sys.argv[1].split("."), answer)
except (KeyError, TypeError):
    sys.exit(f"no {sys.argv[1]} in {json.dumps(answer)}")
print(json.dumps(value) if isinstance(value, (dict, list, bool, type(None))) else value)' "$1"
}

is() { # is WHAT WANTED GOT
  if [[ "$2" != "$3" ]]; then
    echo "$1: wanted '$2', got '$3'" >&2
    exit 1
  fi
  echo "ok  $1"
}

status() { ask -o /dev/null -w '%{http_code}' "$@"; }

small='"model":"wan-mini-t2v","size":"128x128","frames":5,"steps":2,"seed":7'

made=$(ask "$url/v1/videos?wait=60" -H 'Content-Type: application/json' \
  -d "{\"prompt\":\"a red ball\",$small,\"cache\":{\"fn\":1},\"webhook_url\":\"$hook\"}")
is "JSON, held until it is done" completed "$(field status <<<"$made")"
id=$(field id <<<"$made")
is "a nested policy" 1 "$(field spec.cache.fn <<<"$made")"

form=$(ask "$url/v1/videos" -H 'Prefer: wait=60' --data-urlencode 'prompt=a red ball' \
  -d 'model=wan-mini-t2v&size=128x128&frames=5&steps=2&seed=7' -d 'cache[fn]=1')
is "urlencoded, bracket keys" completed "$(field status <<<"$form")"
is "the same spec in both" "$(field spec <<<"$made")" "$(field spec <<<"$form")"

"$ffmpeg" -v error -y -f lavfi -i color=red:s=96x96 -frames:v 1 start.png
picture=$(ask "$url/v1/videos" -F 'prompt=a red ball' -F model=wan-mini-ti2v \
  -F input_reference=@start.png -F steps=2 -F 'loras=[]')
is "multipart with an image: its width" 96 "$(field spec.image.width <<<"$picture")"

tag=$(ask -D - -o /dev/null "$url/v1/videos/$id" | tr -d '\r' | sed -n 's/^[Ee][Tt]ag: //p')
is "the ETag once more" 304 "$(status -H "If-None-Match: $tag" "$url/v1/videos/$id")"

ask -N -H 'Accept: text/event-stream' -H 'Last-Event-ID: 1' "$url/v1/videos/$id/events" >events
is "events go on behind the last one seen" 2 "$(sed -n 's/^id: //p' events | head -1)"
is "the stream ends" end "$(sed -n 's/^event: //p' events | tail -1)"
last=$(sed -n 's/^id: //p' events | tail -1)
is "a stream that is over" 204 \
  "$(status -H 'Accept: text/event-stream' -H "Last-Event-ID: $last" "$url/v1/videos/$id/events")"

ask -o video.mp4 "$url/v1/videos/$id/content"
is "the file's hash" "$(field result.sha256 <<<"$made")" "$(sha256sum video.mp4 | cut -d' ' -f1)"
is "a range" 206 "$(status -r 0-99 "$url/v1/videos/$id/content")"
is "a range beyond the end" 416 "$(status -r 999999999- "$url/v1/videos/$id/content")"
seen=$("$ffmpeg" -hide_banner -i video.mp4 -map 0:v -f null - 2>&1 || true)
is "size" 128x128 "$(grep -oE 'Video: h264.*' <<<"$seen" | grep -oE ' [1-9][0-9]+x[0-9]+' | tr -d ' ' | head -1)"
is "frames" 5 "$(grep -oE 'frame= *[0-9]+' <<<"$seen" | tail -1 | grep -oE '[0-9]+')"
is "frames a second" "$(field fps <<<"$made")" "$(grep -oE '[0-9]+ fps' <<<"$seen" | head -1 | cut -d' ' -f1)"

waits=$(ask "$url/v1/videos" -H 'Content-Type: application/json' \
  -d "{\"prompt\":\"a blue square\",$small,\"steps\":100}" | field error.code)
is "a field sent twice" duplicate_field "$waits"
waits=$(ask "$url/v1/videos" -H 'Content-Type: application/json' \
  -d '{"prompt":"a blue square","model":"wan-mini-t2v","steps":100}' | field id)
ended=$(ask -X POST "$url/v1/videos/$waits/cancel?wait=60" -H 'Content-Type: application/json' \
  -d '{"reason":"not this one"}')
is "cancelled" cancelled "$(field status <<<"$ended")"
is "deleted" true "$(ask -X DELETE "$url/v1/videos/$waits" | field deleted)"
is "gone" 404 "$(status "$url/v1/videos/$waits")"

wrong=$(ask "$url/v1/videos" -H 'Content-Type: application/json' -d '{"prompt":"a","num_frame":5}')
is "an unknown field" "unknown_field num_frame" \
  "$(field error.code <<<"$wrong") $(field error.param <<<"$wrong")"
