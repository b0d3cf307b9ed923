#!/usr/bin/env bash
# Starts the demo N times (default 10), each on fresh data, and tells how long after the start of the process the
# API shows the first accepted block, and how much memory the process then uses.
set -euo pipefail
cd "$(dirname "$0")/.."
n=${1:-10}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
go build -o "$dir/btcpool" ./cmd/btcpool

for i in $(seq "$n"); do
  begin=$(date +%s.%N)
  "$dir/btcpool" -demo -data "$dir/$i" -stratum 127.0.0.1:0 -http 127.0.0.1:0 >"$dir/out" 2>"$dir/log" &
  pid=$!
  url=
  until [ -n "$url" ] && curl -fs "$url/api/v1/blocks" | grep -q '"state":"accepted"'; do
    kill -0 $pid 2>/dev/null || { cat "$dir/log" >&2; exit 1; }
    url=$(grep -o 'http://[0-9.]*:[0-9]*' "$dir/out" | head -n 1 || true)
    sleep 0.05
  done
  seconds=$(awk "BEGIN {print $(date +%s.%N) - $begin}")
  rss=$(awk '/VmRSS/ {print $2}' /proc/$pid/status)
  kill $pid
  wait $pid
  printf 'run %2d: first accepted block after %5.1f s, %d MiB resident\n' "$i" "$seconds" $((rss / 1024))
  echo "$seconds" >>"$dir/times"
done
sort -n "$dir/times" | awk '{t[NR] = $1} END {printf "median %.1f s, worst %.1f s\n", (t[int((NR + 1) / 2)] + t[int(NR / 2) + 1]) / 2, t[NR]}'
