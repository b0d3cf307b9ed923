#!/bin/sh
# Prints the version of this tree: the latest release that CHANGELOG.md has, with -next if lines stand above it, and the
# commit where git knows it.
set -eu
cd "$(dirname "$0")/.."
version=$(sed -n 's/^## \([0-9][0-9.]*\).*/\1/p' CHANGELOG.md | head -n 1)
if grep -q -m 1 '^## Unreleased' CHANGELOG.md; then
	version=${version:-0.0.0}-next
	commit=$(git rev-parse --short=12 HEAD 2>/dev/null) && version=$version+$commit
fi
echo "$version"
