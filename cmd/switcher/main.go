// Command switcher is the Stratum proxy that moves miners between the servers of several chains, as their users' nodes in
// ZooKeeper say, without breaking a connection.
package main

import (
	"os"

	"btcpool/internal/service"
	"btcpool/switcher"
)

func main() {
	os.Exit(service.Main("switcher", os.Args[1:], os.Stderr, switcher.DefaultConfig(), switcher.New))
}
