# What one does here. `make test` is the proof, packages apart (`make release-check`); it installs the servers it needs.

SHELL := bash
TOOL  := go tool -modfile=tools/go.mod
FUZZTIME ?= 1m

# packages some of whose test files have this line
packages = $(shell grep -rl --include='*_test.go' --exclude-dir=.cache --exclude-dir=deploy '$(1)' . | xargs -n1 dirname | sort -u)
# what has tests against real servers, and those of it in which other tests on the machine would spoil figures
REAL     = $(call packages,^//go:build integration)
LOAD     = ./test/latency ./test/load
# what goes through less data with the race detector: see internal/testkit/thin.go
THINNED  = $(call packages,testkit\.Thin\b)
# SQLite is C in its origin, and what it keeps is none of Go's memory: the race detector sees nothing there, slowly.
RACE := go test -race -gcflags=modernc.org/sqlite/lib=-race=false -timeout 25m

PROGRAMS := $(notdir $(wildcard cmd/*))
BIN      ?= bin
# says what -version does: deploy/release.sh and deploy/Dockerfile stamp alike
VERSION  ?= $(shell deploy/version.sh)
STAMP     = -X btcpool/internal/service.version=$(VERSION)

.PHONY: build env release agents install demo test unit integration real load release-check deploy-check lint vulncheck fmt fuzz figures bench screenshots dashboards runbook licences

build: ## every program into bin/
	CGO_ENABLED=0 go build -trimpath -ldflags='$(STAMP)' -o $(BIN)/ $(addprefix ./cmd/,$(PROGRAMS))

env: ## .env and secrets/ for docker compose; NETWORK=regtest: a chain of its own, NODE=http://… NODE_USER=…: a node of yours
	deploy/env.sh $(or $(NETWORK),mainnet) "$(NODE)" $(NODE_USER)

agents: ## agentproxy into bin/agents/, for the boxes that farms have
	for target in linux/amd64 linux/arm64 linux/arm linux/mipsle linux/mips64le windows/amd64 darwin/amd64 darwin/arm64; do \
		GOOS=$${target%/*} GOARCH=$${target#*/} GOARM=7 GOMIPS=softfloat CGO_ENABLED=0 \
			go build -trimpath -ldflags='-s -w $(STAMP)' -o bin/agents/$${target/\//-}/ ./cmd/agentproxy || exit; \
	done

release: ## packages, tarballs, bill of materials and checksums into dist/
	deploy/release.sh

licences: ## what everything that is linked stands under
	go tool -modfile=deploy/packages/tools/go.mod cyclonedx-gomod mod -json -notimestamp -noserial -licenses -std . | deploy/licences.sh

runbook: ## docs/runbook.md, from the alerts
	cd deploy/check && go test -count=1 -run '^TestRunbook$$' . -update

dashboards: ## deploy/grafana/dashboards/, from deploy/check/dashboards_test.go
	cd deploy/check && go test -count=1 -run '^TestDashboards$$' . -update

screenshots: ## pictures of the pages that the browser tests open, into bin/screenshots/
	go test -tags integration -count=1 -run '^TestPagesInBrowser$$' ./statshttpd -args -shots $(CURDIR)/bin/screenshots

# Services whose units have a reload of their own.
RELOADED = agentproxy sserver switcher

install: ## what build has made, units and samples under $(DESTDIR)/; a configuration that is there stays
	install -d $(addprefix $(DESTDIR)/,usr/bin etc/btcpool $(addprefix usr/lib/systemd/system/btcpool@,$(addsuffix .service.d,$(RELOADED))) usr/lib/sysusers.d)
	install -m 755 $(addprefix $(BIN)/,$(PROGRAMS)) $(DESTDIR)/usr/bin
	install -m 644 deploy/systemd/btcpool@.service deploy/systemd/btcpool.target $(DESTDIR)/usr/lib/systemd/system
	for s in $(RELOADED); do \
		install -m 644 deploy/systemd/btcpool@$$s.service.d/reload.conf $(DESTDIR)/usr/lib/systemd/system/btcpool@$$s.service.d; \
	done
	install -m 644 deploy/systemd/btcpool.sysusers $(DESTDIR)/usr/lib/sysusers.d/btcpool.conf
	for f in configs/*.toml; do \
		test -e $(DESTDIR)/etc/btcpool/$${f##*/} || install -m 640 $$f $(DESTDIR)/etc/btcpool; \
	done

demo: ## the whole pool on an embedded chain, mining
	go run ./cmd/btcpool -demo

test: ## everything a fresh machine can prove
	test/all.sh

unit: ## needs nothing but Go
	$(RACE) ./...
	go test $(THINNED)

integration: ## against real Kafka, MariaDB, ZooKeeper and btcd
	test/install.sh
	$(MAKE) --no-print-directory real load
	cd deploy/check && go test -tags integration -count=1 -timeout 25m -run 'ComposeRuns|UnitsVerified' .

real: ## of that, where no figures are measured: most of it waits, so two packages at a time
	go test -tags integration -count=1 -p 2 -timeout 40m $(filter-out $(LOAD),$(REAL))

load: ## of that, load and latency, alone on the machine
	go test -tags integration -count=1 -p 1 -timeout 25m $(LOAD)

release-check: ## a release twice over, and its packages installed, upgraded and removed beside this machine
	cd deploy/check && go test -tags integration -count=1 -timeout 40m -run 'Release' .

deploy-check: ## Dockerfile, compose file, units, alerts and dashboards, by the libraries that read them
	cd deploy/check && go test -count=1 ./...

lint:
	go vet ./... && go vet -tags integration $(REAL)
	for target in linux/arm linux/mipsle windows/amd64 darwin/arm64; do \
		GOOS=$${target%/*} GOARCH=$${target#*/} CGO_ENABLED=0 go vet ./cmd/agentproxy ./agentproxy ./internal/poll ./internal/service || exit; \
	done
	$(TOOL) golangci-lint run ./... && $(TOOL) golangci-lint run --build-tags integration $(REAL)
	go mod tidy -diff

vulncheck: ## known vulnerabilities in what is linked; VULNDB=file:///…: of a copy of the database
	test/vulncheck.sh

fmt:
	$(TOOL) gofumpt -w $$(git ls-files '*.go')

fuzz: ## each fuzz target for FUZZTIME (default 1m)
	test/fuzz.sh $(FUZZTIME)

figures: ## what shares, blocks, days and pages cost on this machine
	test/figures.sh

bench: ## each benchmark beside its limit
	go test -run '^$$' -bench . -benchmem ./...
