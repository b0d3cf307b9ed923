#!/usr/bin/env bash
# What shares, blocks, days and pages cost on this machine, each beside its limit: docs/performance.md says what they mean.
# Some fifteen minutes with nothing else on the machine; says how much of its time the machine's host took meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0
jiffies() { awk '/^cpu /{print $9, $2+$3+$4+$5+$6+$7+$8+$9}' /proc/stat; }
figure() { # name, command...
  printf '\n== %s\n' "$1"
  shift
  printf '%s\n' "$*"
  local stolen all stolen2 all2
  read -r stolen all < <(jiffies)
  "$@" 2>&1 | grep -Ev '^(=== |--- PASS|PASS|goos|goarch|pkg)' || failed=1
  read -r stolen2 all2 < <(jiffies)
  echo "the host took $((100 * (stolen2 - stolen) / (all2 - all))) % of the processor"
}
load=(go test -tags integration -count=1 -v -timeout 30m ./test/load)
day=(go test -run '^$' -bench Day/compute -benchtime 1x -timeout 30m ./slparser -args -shares 5000000)
figure 'a share'                                   "${load[@]}" -run '^TestRates$' -connections 10000 -time 6s -rates 1000,5000,0 -repeat 5
figure 'a new block'                               "${load[@]}" -run '^TestNewBlock$' -connections 10000 -rounds 25 -rate 1000 -time 20s
figure 'a day of 10,000 workers, 90 million shares'   "${day[@]}" -times 18
figure 'a day of 100,000 workers, 90 million shares'  "${day[@]}" -times 18 -workers 100000
figure '100,000 workers on the pages'              go test -count=1 -v -run '^TestLoad$' ./statshttpd -load 100000
figure 'the whole pool in one process'             go test -run '^$' -bench Pool -benchtime 1x ./cmd/btcpool -args -miners 1000 -time 30s
exit $failed
