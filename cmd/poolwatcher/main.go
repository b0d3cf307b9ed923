// Command poolwatcher learns of new blocks from the jobs of other pools.
package main

import (
	"os"

	"btcpool/internal/service"
	"btcpool/poolwatcher"
)

func main() {
	os.Exit(service.Main("poolwatcher", os.Args[1:], os.Stderr, poolwatcher.DefaultConfig(), poolwatcher.New))
}
