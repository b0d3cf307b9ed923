// Command statshttpd serves the pool's dashboard and HTTP API and keeps the table of workers up to date.
package main

import (
	"os"

	"btcpool/internal/service"
	"btcpool/statshttpd"
)

func main() {
	os.Exit(service.Main("statshttpd", os.Args[1:], os.Stderr, statshttpd.DefaultConfig(), statshttpd.New))
}
