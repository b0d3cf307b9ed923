#!/bin/sh
# Prints the version of this tree, from CHANGELOG.md: 0.5.0 where the newest section is that release, and where lines stand
# above it what comes behind it and before the next, 0.6.0-next.20260131235959, with the commit's time. Where git knows the
# commit it follows, and whether files differ from it: +abcdef123456, +abcdef123456.modified.
set -eu
cd "$(dirname "$0")/.."
version=$(sed -n 's/^## \([0-9][0-9.]*\).*/\1/p' CHANGELOG.md | head -n 1)
version=${version:-0.0.0}
commit=
if [ -e .git ] && commit=$(git rev-parse --short=12 HEAD 2>/dev/null); then
	git diff --quiet HEAD || commit=$commit.modified
fi
if grep -q '^## Unreleased' CHANGELOG.md; then
	minor=${version#*.}
	version=${version%%.*}.$((${minor%%.*} + 1)).0-next${commit:+.$(TZ=UTC0 git log -1 --date=format-local:%Y%m%d%H%M%S --format=%cd)}
fi
echo "$version${commit:++$commit}"
