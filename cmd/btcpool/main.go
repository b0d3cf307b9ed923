// Command btcpool is the whole pool in one process: every service, built and run as it is alone, on an embedded broker,
// database and chain unless the configuration names real ones.
package main

import (
	"os"

	"btcpool/internal/service"
)

func main() {
	os.Exit(service.Main("btcpool", os.Args[1:], os.Stderr, defaultConfig(), func(cfg Config, deps service.Deps) (*pool, error) {
		return newPool(cfg, deps, os.Stdout)
	}))
}
