// Command blkmaker makes blocks of solved shares and submits them to every node.
package main

import (
	"os"

	"btcpool/blkmaker"
	"btcpool/internal/service"
)

func main() {
	os.Exit(service.Main("blkmaker", os.Args[1:], os.Stderr, blkmaker.DefaultConfig(), blkmaker.New))
}
