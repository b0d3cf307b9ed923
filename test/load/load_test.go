//go:build integration

// Package load proves what sserver promises under load, from outside: of a real process, on real Kafka, with figures
// beside their goals and beside what the kernel alone takes in the same run. The load comes from helper processes,
// which this test starts of itself.
//
// Without flags it is short and judges only what does not depend on the machine: that each accepted share is in the
// topic once, that no honest miner is disconnected or refused, and that connections leave nothing behind. The whole
// proof is
//
//	go test -tags integration -v -timeout 3h ./test/load -run TestFigures -connections 10000 -time 30s -rate 5000 -rounds 20
//	go test -tags integration -v -timeout 3h ./test/load -run TestNewBlock -connections 10000 -time 20s -rate 1000 -rounds 25
//	go test -tags integration -v -timeout 3h ./test/load -run TestSoak    -connections 10000 -soak 1h -rate 1000 -block 1m
//	go test -tags integration -v -timeout 3h ./test/load -run TestHostile -connections 1000 -intruders 10000 -time 30s -rate 200 -hostile-rate 5000
//	go test -tags integration -v -timeout 3h ./test/load -run TestPipeline -connections 10000 -time 30m -rate 1000 -block 1m
//
// and, for memory alone, -run TestFigures -connections 50000 -time 5s. The limit of open files (ulimit -Hn) must be
// some hundreds above the number of connections.
package load

import (
	"flag"
	"os"
	"testing"
	"time"

	"btcpool/test/integration/rig"
)

var (
	connections = flag.Int("connections", 200, "honest miners")
	duration    = flag.Duration("time", 3*time.Second, "for each figure, and for each attack")
	rate        = flag.Float64("rate", 200, "shares a second of all miners, where they come at a pace")
	rounds      = flag.Int("rounds", 5, "new blocks whose way to the miners is measured")
	soak        = flag.Duration("soak", 10*time.Second, "how long TestSoak takes")
	churn       = flag.Float64("churn", .01, "part of the miners that reconnect each second in TestSoak")
	block       = flag.Duration("block", 2*time.Second, "between new blocks in TestSoak, and on average in TestPipeline")
	intruders   = flag.Int("intruders", 300, "hostile connections")
	hostileRate = flag.Float64("hostile-rate", 300, "what they do a second: connections, and writes")
	sserver     = flag.String("sserver", "", "this `program` instead of the project's")
)

// roleVariable names the helper that this program is to be.
const roleVariable = "LOAD_HELPER"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role))
	}
	rig.JVM = nil // Kafka's part is in the figures
	flag.Parse()
	if *peer != "" { // which is in the machine's network
		os.Exit(m.Run())
	}
	os.Exit(rig.RunInOwnNetwork(m, "up"))
}
