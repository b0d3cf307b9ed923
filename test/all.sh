#!/usr/bin/env bash
# The proof, in order of cost: installs what it needs, runs every test but that of packages, ends with a summary.
# Any failure makes it exit 1, after the other stages have run.
set -uo pipefail
cd "$(dirname "$0")/.."

summary=()
failed=0
stage() { # name, command...
  local name=$1 begin=$SECONDS result=ok
  shift
  printf '\n== %s\n' "$name"
  "$@" || { result=FAILED; failed=1; }
  summary+=("$(printf '%-44s %-7s %4d s' "$name" "$result" $((SECONDS - begin)))")
}

stage 'install servers'                          test/install.sh
stage 'unit and component tests (race detector)' make --no-print-directory unit
stage 'deployment files'                         make --no-print-directory deploy-check
stage 'integration: real servers, faults, kill -9' make --no-print-directory real
stage 'load and latency'                         make --no-print-directory load
stage 'as containers and units'                   bash -c "cd deploy/check && go test -tags integration -count=1 -timeout 25m -run 'ComposeRuns|UnitsVerified' ."

release=$(sed -n 's/^## .* (commit \([0-9a-f]*\))$/\1/p' CHANGELOG.md | head -n 1)
git cat-file -e "$release^{commit}" 2>/dev/null ||
  summary+=("the last release's commit $release is not here: upgrades were tried from this tree to itself")

printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
exit $failed
