//go:build integration

package statshttpd

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"btcpool/internal/testkit"
)

// browser is a tab of Chromium, driven by its debugging protocol over two pipes. It remembers what went wrong in pages.
type browser struct {
	t       *testing.T
	to      io.Writer
	session string

	mu      sync.Mutex
	last    int
	answers map[int]chan json.RawMessage
	faults  []string
	bytes   float64  // that came over the wire since the page was opened
	asked   []string // URLs of requests since the page was opened
}

func openBrowser(t *testing.T) *browser {
	t.Helper()
	theirIn, ourOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ourIn, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	profile, err := os.MkdirTemp("", "chromium") // not TempDir, which demands that nobody writes to it any more
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(profile) })
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context())) // until it is closed below
	chromium := exec.CommandContext(ctx, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+profile, "--remote-debugging-pipe")
	chromium.ExtraFiles = []*os.File{theirIn, theirOut} // descriptors 3 and 4
	if err := chromium.Start(); err != nil {
		t.Fatalf("chromium: %v (run test/install.sh)", err)
	}
	theirIn.Close()
	theirOut.Close()
	b := &browser{t: t, to: ourOut, answers: make(map[int]chan json.RawMessage)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		b.read(bufio.NewReader(ourIn))
	}()
	t.Cleanup(func() {
		_, _ = ourOut.Write([]byte(`{"id":1000000,"method":"Browser.close"}` + "\x00")) // answered or not: it ends
		end := time.AfterFunc(10*time.Second, cancel)
		_ = chromium.Wait()
		end.Stop()
		cancel()
		ourOut.Close()
		ourIn.Close()
		<-read
	})
	var target struct{ TargetID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		b.call(domain+".enable", nil, nil)
	}
	b.call("Network.setCacheDisabled", map[string]any{"cacheDisabled": true}, nil)
	return b
}

func (b *browser) read(from *bufio.Reader) {
	for {
		text, err := from.ReadBytes(0)
		if err != nil {
			return
		}
		var m struct {
			ID     int
			Method string
			Params struct {
				Type              string
				EncodedDataLength float64
				Response          struct{ EncodedDataLength float64 }
				Request           struct{ URL string }
				Entry             struct{ Level, Source, Text string }
			}
			Result json.RawMessage
			Error  json.RawMessage
		}
		if err := json.Unmarshal(text[:len(text)-1], &m); err != nil {
			m.Method = "unreadable"
		}
		b.mu.Lock()
		switch {
		case m.Method == "unreadable", m.Method == "Runtime.exceptionThrown", m.Method == "Page.javascriptDialogOpening",
			m.Method == "Runtime.consoleAPICalled" && m.Params.Type == "error",
			m.Method == "Log.entryAdded" && m.Params.Entry.Level == "error" && !isUnknownMiner(m.Params.Entry.Source, m.Params.Entry.Text):
			b.faults = append(b.faults, string(text[:len(text)-1]))
		case m.Method == "Network.requestWillBeSent":
			b.asked = append(b.asked, m.Params.Request.URL)
		case m.Method == "Network.dataReceived": // what is open still has not finished
			b.bytes += m.Params.EncodedDataLength
		case m.Method == "Network.responseReceived":
			b.bytes += m.Params.Response.EncodedDataLength // its head
		case m.ID > 0:
			if m.Error != nil && !isOfAnotherPage(string(m.Error)) {
				b.faults = append(b.faults, string(m.Error))
			}
			if answer := b.answers[m.ID]; answer != nil {
				answer <- m.Result
				delete(b.answers, m.ID)
			}
		}
		b.mu.Unlock()
	}
}

// isOfAnotherPage tells that a script was to run in a page that was being left.
func isOfAnotherPage(fault string) bool {
	for _, text := range []string{"navigated or closed", "context was destroyed", "Cannot find context", "Cannot find default execution context"} {
		if strings.Contains(fault, text) {
			return true
		}
	}
	return false
}

// isUnknownMiner tells that the browser says no more than that the API answered 404, as it does while a miner is sought.
func isUnknownMiner(source, text string) bool {
	return source == "network" && strings.Contains(text, "404")
}

func (b *browser) call(method string, parameters map[string]any, result any) {
	b.t.Helper()
	b.mu.Lock()
	b.last++
	id, answer := b.last, make(chan json.RawMessage, 1)
	b.answers[id] = answer
	b.mu.Unlock()
	m := map[string]any{"id": id, "method": method, "params": parameters}
	if parameters == nil {
		delete(m, "params")
	}
	if b.session != "" {
		m["sessionId"] = b.session
	}
	text, err := json.Marshal(m)
	if err == nil {
		_, err = b.to.Write(append(text, 0))
	}
	if err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	select {
	case text = <-answer:
	case <-time.After(testkit.Patience):
		b.t.Fatalf("%s: no answer", method)
	}
	if result != nil && len(text) > 0 {
		if err := json.Unmarshal(text, result); err != nil {
			b.t.Fatalf("%s: %s: %v", method, text, err)
		}
	}
}

// do runs a script in the page and returns what it says as text.
func (b *browser) do(script string) string {
	b.t.Helper()
	var answer struct{ Result struct{ Value any } }
	b.call("Runtime.evaluate", map[string]any{"expression": script, "returnByValue": true}, &answer)
	return fmt.Sprint(answer.Result.Value)
}

// await waits until a script says what is wanted.
func (b *browser) await(script, want string) {
	b.t.Helper()
	var got string
	for deadline := time.Now().Add(testkit.Patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if got = b.do(script); got == want {
			return
		}
	}
	b.t.Fatalf("%s is %q, want %q; faults %v", script, got, want, b.faults)
}

func (b *browser) open(address string) {
	b.t.Helper()
	b.call("Page.navigate", map[string]any{"url": "about:blank"}, nil)
	b.await("location.href", "about:blank")
	b.mu.Lock()
	b.bytes, b.asked = 0, nil
	b.mu.Unlock()
	b.call("Page.navigate", map[string]any{"url": address}, nil)
}

// check tells of what went wrong in the pages since the last check.
func (b *browser) check(page string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fault := range b.faults {
		b.t.Errorf("%s: %s", page, fault)
	}
	b.faults = nil
}

// weigh tells when a page that was just opened took too many bytes, with all that it asked for.
func (b *browser) weigh(page string) {
	b.t.Helper()
	const most = 60_000
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bytes == 0 || b.bytes > most {
		b.t.Errorf("%s: %.0f bytes came over the wire, want at most %d", page, b.bytes, most)
	}
	b.t.Logf("%s: %.0f bytes", page, b.bytes)
}
