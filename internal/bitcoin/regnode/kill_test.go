package regnode_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin/regnode"
)

// victimDir names, in the environment of a process of this test, the directory of the chain on which it mines until it
// is killed.
const victimDir = "REGNODE_VICTIM_DIR"

func victim(dir string) {
	node, err := regnode.Open(regnode.Config{Dir: dir, Bits: easyBits}, zerolog.Nop())
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("height", node.Height())
	for {
		hashes, err := node.Generate(context.Background(), 1)
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("block", hashes[0])
	}
}

// TestKill has no block lost that was accepted before the process was killed.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var accepted []string
	for round := range 3 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), victimDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); {
			word, rest, _ := strings.Cut(lines.Text(), " ")
			switch word {
			case "height":
				var height int
				if _, err := fmt.Sscan(rest, &height); err != nil || height < len(accepted) {
					t.Errorf("round %d starts at height %s, want at least %d", round, rest, len(accepted))
				}
			case "block":
				accepted = append(accepted, rest)
				if n++; n == 20 {
					if err := cmd.Process.Kill(); err != nil {
						t.Fatal(err)
					}
				}
			default:
				t.Fatal(lines.Text())
			}
		}
		_ = cmd.Wait() // killed
	}

	_, client := start(t, regnode.Config{Dir: dir})
	for _, hash := range accepted {
		if info, err := client.Block(t.Context(), hash); err != nil || info.Confirmations < 1 {
			t.Errorf("block %s: %+v, %v", hash, info, err)
		}
	}
	if len(accepted) < 60 {
		t.Errorf("%d blocks accepted, want at least 60", len(accepted))
	}
}
