#!/usr/bin/env bash
# Installs what the integration tests run against: Apache Kafka (Maven), MariaDB, ZooKeeper, Redis and
# Chromium (Debian packages), btcd and versitygw (Go modules), chdb, duckdb and pyarrow (PyPI), axe-core (npm). Safe to repeat; prints what it did and fails
# loudly when something cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "install: $*" >&2; exit 1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

missing=()
command -v mariadbd >/dev/null || [ -x /usr/sbin/mariadbd ] || missing+=(mariadb-server)
[ -e /usr/share/java/zookeeper.jar ] || missing+=(zookeeper)
command -v redis-server >/dev/null || missing+=(redis-server)
command -v chromium >/dev/null || missing+=(chromium)
command -v java >/dev/null || missing+=(default-jre-headless)
command -v mvn >/dev/null || missing+=(maven)
command -v npm >/dev/null || missing+=(npm)
command -v ip >/dev/null || missing+=(iproute2)
command -v curl >/dev/null || missing+=(curl)
command -v systemd-analyze >/dev/null || missing+=(systemd) # reads the units, runs nothing
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
command -v gcc >/dev/null || missing+=(gcc libc6-dev) # for go test -race
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || fail "needs ${missing[*]}: install them with this system's package manager"
  echo "install: Debian packages ${missing[*]}"
  # A package's own service must not start: the tests run servers of their own on free ports.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod +x $policy
    trap 'as_root rm -f $policy' EXIT
  fi
  log=$(mktemp)
  { as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 \
    || { tail -n 20 "$log" >&2; fail "apt-get could not install ${missing[*]}"; }
fi

# The broker we recommend, and the last that takes what btcpool's own services send.
for version in 4.1.1 3.9.2; do
  kafka=.cache/kafka-$version
  [ ! -e $kafka/complete ] || continue
  echo "install: Apache Kafka $version"
  mvn -q -B -f test/kafka/pom.xml dependency:copy-dependencies -Dkafka.version=$version \
    -DoutputDirectory="$PWD/$kafka/lib" -DincludeScope=runtime || fail "Maven could not fetch Apache Kafka $version"
  touch $kafka/complete
done

# Engines of others that read sealed days.
engines="chdb==4.4.0 duckdb==2.0.0 pyarrow==26.0.1"
if [ "$(cat .cache/python/complete 2>/dev/null)" != "$engines" ]; then
  echo "install: $engines"
  python3 -m venv --clear .cache/python || fail "no Python environment can be made"
  # shellcheck disable=SC2086 # a word each
  .cache/python/bin/pip install -q --disable-pip-version-check $engines || fail "pip could not install $engines"
  echo "$engines" >.cache/python/complete
fi

# What judges whether everybody can use the pages.
axe=4.14.1
if [ ! -e .cache/axe-core/$axe ]; then
  echo "install: axe-core"
  rm -rf .cache/axe-core && mkdir -p .cache/axe-core
  npm pack --silent --pack-destination .cache/axe-core axe-core@$axe >/dev/null || fail "npm could not fetch axe-core"
  tar -xzf .cache/axe-core/axe-core-$axe.tgz -C .cache/axe-core && touch .cache/axe-core/$axe
fi

# The last release is built of its commit.
if [ "$(git rev-parse --is-shallow-repository 2>/dev/null)" = true ]; then
  echo "install: the history of this clone"
  git fetch -q --unshallow || echo "install: git fetch --unshallow could not fetch the history: test/upgrade goes from this tree to itself" >&2
fi

echo "install: btcd"
mkdir -p .cache/bin
go build -modfile=tools/go.mod -o .cache/bin/btcd github.com/btcsuite/btcd || fail "btcd does not build"
echo "install: versitygw"
GOBIN="$PWD/.cache/bin" go install github.com/versity/versitygw/cmd/versitygw@v1.8.0 || fail "versitygw does not build"
echo "install: ready"
