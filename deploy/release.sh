#!/usr/bin/env bash
# Builds a release into dist/: .deb and .rpm of the pool and of agentproxy, tarballs, agentproxy for the boxes of farms,
# the bill of materials and checksums. The same commit and the same Go make the same bytes, wherever and whenever.
#
#   DIST=dist ARCHS="amd64 arm64" FORMATS="deb rpm" VERSION=… deploy/release.sh
set -euo pipefail
cd "$(dirname "$0")/.."
dist=${DIST:-dist}
export VERSION=${VERSION:-$(deploy/version.sh)}
# The time that all files have: the commit's.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
tool() { go tool -modfile=deploy/packages/tools/go.mod "$@"; }
build() { CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags="-s -w -buildid= -X btcpool/internal/service.version=$VERSION" "$@"; }
# pack FILE FOLDER: the folder as a tarball, of nobody in particular.
pack() {
	tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX -C "$(dirname "$2")" -cf - "$(basename "$2")" | gzip -n >"$1"
}

# dated FOLDER: the time and the rights that all files have.
dated() {
	chmod -R u=rwX,go=rX "$1"
	find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

umask 022
rm -rf "$dist"
mkdir -p "$dist"
stages=$(mktemp -d)
trap 'rm -rf "$stages"' EXIT
# What stands beside the programs: documents without links that lead out of the tree, manual pages, completion.
share=$stages/share
mkdir -p "$share"/{man,completions,deploy}
cp -rL docs "$share/docs"
cp -r deploy/{prometheus,grafana} "$share/deploy/"
build -o "$stages/btcpoolctl" ./cmd/btcpoolctl
"$stages/btcpoolctl" man "$share/man"
"$stages/btcpoolctl" completion bash >"$share/completions/btcpoolctl"
"$stages/btcpoolctl" completion zsh >"$share/completions/_btcpoolctl"
"$stages/btcpoolctl" completion fish >"$share/completions/btcpoolctl.fish"
dated "$share"
for arch in ${ARCHS:-amd64 arm64}; do
	export ARCH=$arch STAGE=$stages/$arch
	mkdir -p "$STAGE"/bin "$STAGE"/configs "$STAGE"/agent
	GOARCH=$arch build -o "$STAGE/bin/" ./cmd/...
	mv "$STAGE/bin/agentproxy" "$STAGE/agent/"
	cp configs/*.toml "$STAGE/configs/"
	rm "$STAGE/configs/agentproxy.toml"
	{
		sed -e 's/%i/agentproxy/g' -e '/^#/d' -e '/^PartOf=/d' -e 's/^WantedBy=.*/WantedBy=multi-user.target/' deploy/systemd/btcpool@.service
		sed -e 's/%i/agentproxy/g' deploy/systemd/btcpool@agentproxy.service.d/reload.conf
	} >"$STAGE/agent/btcpool-agentproxy.service"
	dated "$STAGE"
	for package in pool agentproxy; do
		for format in ${FORMATS:-deb rpm}; do
			# nfpm puts variables into names of files only where envsubst has been.
			sed -e "s|\${STAGE}|$STAGE|; s|\${SHARE}|$share|; s|\${VERSION}|$VERSION|; s|\${ARCH}|$ARCH|" "deploy/packages/$package.yaml" >"$STAGE/$package.yaml"
			tool nfpm package --config "$STAGE/$package.yaml" --packager "$format" --target "$dist/" >/dev/null
		done
	done
	whole=$stages/btcpool-$VERSION-linux-$arch
	mkdir "$whole"
	cp -r "$STAGE/bin" "$share/docs" "$share/man" "$share/completions" configs README.md README-zhCN.md CHANGELOG.md LICENSE "$whole/"
	mkdir "$whole/deploy"
	cp -r deploy/{prometheus,grafana,systemd} "$whole/deploy/"
	cp "$STAGE/agent/agentproxy" "$whole/bin/"
	pack "$dist/btcpool-$VERSION-linux-$arch.tar.gz" "$whole"
done
for target in ${AGENTS-linux/arm linux/mipsle linux/mips64le windows/amd64 darwin/amd64 darwin/arm64}; do
	folder=$stages/agentproxy-$VERSION-${target/\//-}
	mkdir "$folder"
	GOOS=${target%/*} GOARCH=${target#*/} GOARM=7 GOMIPS=softfloat build -o "$folder/" ./cmd/agentproxy
	cp configs/agentproxy.toml docs/farm.md docs/farm.zh.md LICENSE "$folder/"
	pack "$dist/agentproxy-$VERSION-${target/\//-}.tar.gz" "$folder"
done
# Without .git, from which it would take a version of its own.
mkdir "$stages/source"
tar --exclude=./.git --exclude=./.cache --exclude=./bin --exclude=./dist -cf - . | tar -xf - -C "$stages/source"
tool cyclonedx-gomod mod -json -noserial -notimestamp -licenses -std "$stages/source" |
	sed -e "s|pkg:golang/btcpool?|pkg:golang/btcpool@${VERSION/+/%2B}?|" -e "0,/\"name\": \"btcpool\",/s||&\n      \"version\": \"$VERSION\",|" \
		>"$dist/btcpool-$VERSION.sbom.json"
(cd "$dist" && sha256sum -- * >SHA256SUMS)
echo "release: $VERSION in $dist/"
