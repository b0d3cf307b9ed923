// Command gbtmaker takes block templates from a Bitcoin node.
package main

import (
	"os"

	"btcpool/gbtmaker"
	"btcpool/internal/service"
)

func main() {
	os.Exit(service.Main("gbtmaker", os.Args[1:], os.Stderr, gbtmaker.DefaultConfig(), gbtmaker.New))
}
