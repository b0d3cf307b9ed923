# What one does here. `make test` is the whole proof; it installs the servers it needs.

SHELL := bash
TOOL  := go tool -modfile=tools/go.mod
FUZZTIME ?= 1m

.PHONY: build demo test unit integration deploy-check lint fmt fuzz bench

build: ## every program into bin/
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/...

demo: ## the whole pool on an embedded chain, mining
	go run ./cmd/btcpool -demo

test: ## everything a fresh machine can prove
	test/all.sh

unit: ## needs nothing but Go
	go test -race ./...

integration: ## against real Kafka, MariaDB, ZooKeeper and btcd
	test/install.sh
	go test -tags integration -count=1 -p 1 -timeout 15m ./internal/bus ./test/...

deploy-check: ## Dockerfile, compose file and units, by the libraries that read them
	cd deploy/check && go test -count=1 ./...

lint:
	go vet ./... && go vet -tags integration ./internal/bus ./test/...
	$(TOOL) staticcheck ./... && $(TOOL) staticcheck -tags integration ./internal/bus ./test/...
	$(TOOL) golangci-lint run ./... && $(TOOL) golangci-lint run --build-tags integration ./internal/bus ./test/...
	go mod tidy -diff

fmt:
	$(TOOL) gofumpt -w $$(git ls-files '*.go')

fuzz: ## each fuzz target for FUZZTIME (default 1m)
	test/fuzz.sh $(FUZZTIME)

bench: ## each benchmark beside its limit
	go test -run '^$$' -bench . -benchmem ./...
