// Command switchapi says which chain each user mines: an HTTP API that writes to ZooKeeper, and the choice for users in
// auto mode.
package main

import (
	"os"

	"btcpool/internal/service"
	"btcpool/switchapi"
)

func main() {
	os.Exit(service.Main("switchapi", os.Args[1:], os.Stderr, switchapi.DefaultConfig(), switchapi.New))
}
