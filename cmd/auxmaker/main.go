// Command auxmaker takes work of other chains that is mined along with the pool's.
package main

import (
	"os"

	"btcpool/auxmaker"
	"btcpool/internal/service"
)

func main() {
	os.Exit(service.Main("auxmaker", os.Args[1:], os.Stderr, auxmaker.DefaultConfig(), auxmaker.New))
}
