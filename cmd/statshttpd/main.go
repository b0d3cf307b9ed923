// Command statshttpd serves the pool's dashboard and HTTP API and keeps the table of workers up to date.
package main

import (
	"os"
	"runtime/debug"

	"btcpool/internal/service"
	"btcpool/statshttpd"
)

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50) // nearly all of its memory are figures, which cost nothing to collect
	}
	os.Exit(service.Main("statshttpd", os.Args[1:], os.Stderr, statshttpd.DefaultConfig(), statshttpd.New))
}
