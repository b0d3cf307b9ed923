// Command agentproxy is the farm-side proxy. It takes BTCAgent's flags and file as well as the project's own.
package main

import (
	"os"

	"btcpool/agentproxy"
)

func main() { os.Exit(agentproxy.Main(os.Args[1:], os.Stderr)) }
