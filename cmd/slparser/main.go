// Command slparser makes statistics of the share log, or prints it.
package main

import (
	"os"

	"btcpool/internal/service"
	"btcpool/slparser"
)

func main() {
	os.Exit(service.Main("slparser", os.Args[1:], os.Stderr, slparser.DefaultConfig(), slparser.New))
}
