//go:build integration

package load

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin/regnode"
	"btcpool/test/integration/rig"
)

// startNode starts a node, as a helper, on a chain whose blocks take so many hashes: those of btcd's and Bitcoin Core's
// regtest take two, so that every share would be a block.
func startNode(t *testing.T, hashes float64) (n rig.Node, pid int) {
	t.Helper()
	h := start(t, "node")
	return ask[rig.Node](t, h, order{File: t.TempDir(), Rate: hashes}), h.pid
}

// playNode is the helper: it obeys one order.
func playNode() int {
	err := func() error {
		in := json.NewDecoder(os.Stdin)
		var o order
		if err := in.Decode(&o); err != nil {
			return err
		}
		node, err := regnode.Open(regnode.Config{Dir: o.File, Bits: regnode.BitsFor(o.Rate)}, zerolog.Nop())
		if err != nil {
			return err
		}
		defer node.Close()
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- node.Run(ctx) }()
		if err := json.NewEncoder(os.Stdout).Encode(rig.Node{
			URL: node.RPCURL(), User: node.User(), Password: node.Password(), ZMQ: node.ZMQAddr(),
		}); err != nil {
			stop()
			return err
		}
		_, err = io.Copy(io.Discard, in.Buffered())
		if err == nil {
			_, err = io.Copy(io.Discard, os.Stdin)
		}
		stop()
		if err != nil {
			return err
		}
		return <-ended
	}()
	if err != nil {
		fmt.Fprintf(os.Stderr, "node: %v\n", err)
		return 1
	}
	return 0
}
