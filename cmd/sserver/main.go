// Command sserver is the Stratum server.
package main

import (
	"os"

	"btcpool/internal/service"
	"btcpool/sserver"
)

func main() {
	os.Exit(service.Main("sserver", os.Args[1:], os.Stderr, sserver.DefaultConfig(), sserver.New))
}
