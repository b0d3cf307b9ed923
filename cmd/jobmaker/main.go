// Command jobmaker turns raw block templates into Stratum jobs.
package main

import (
	"os"

	"btcpool/internal/service"
	"btcpool/jobmaker"
)

func main() {
	os.Exit(service.Main("jobmaker", os.Args[1:], os.Stderr, jobmaker.DefaultConfig(), jobmaker.New))
}
