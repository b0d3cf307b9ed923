// Command sharelogger writes all shares to one file a day.
package main

import (
	"os"

	"btcpool/internal/service"
	"btcpool/sharelogger"
)

func main() {
	os.Exit(service.Main("sharelogger", os.Args[1:], os.Stderr, sharelogger.DefaultConfig(), sharelogger.New))
}
