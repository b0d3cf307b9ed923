package httpapi_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/httpapi"
)

func TestServe(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	asked, answer := make(chan struct{}), make(chan struct{})
	served := make(chan error, 1)
	go func() {
		served <- httpapi.Serve(ctx, ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(asked)
			<-answer
			httpapi.Write(w, http.StatusAccepted, []int{1})
		}), time.Minute)
	}()
	got := make(chan string, 1)
	go func() {
		res, err := http.Get("http://" + ln.Addr().String())
		if err != nil {
			got <- err.Error()
			return
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		got <- res.Status + " " + string(text)
	}()
	<-asked
	stop() // a request that is under way is answered
	close(answer)
	if text := <-got; text != "202 Accepted [1]\n" {
		t.Errorf("got %q", text)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// The connection that waits for a request for the longest makes room; when all are busy there is none.
func TestServeUpTo(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	asked, answer := make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-answer
	})
	var closed atomic.Int32
	served := make(chan error, 1)
	go func() { served <- httpapi.ServeUpTo(ctx, 2, func() { closed.Add(1) }, ln, handler, time.Minute) }()
	dial := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	ask := func(conn net.Conn) {
		t.Helper()
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: pool\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		<-asked
	}
	isClosed := func(conn net.Conn) {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	silent, first := dial(), dial()
	ask(first)
	second := dial()
	isClosed(silent)
	ask(second)
	isClosed(dial())
	close(answer)
	for _, conn := range []net.Conn{first, second} {
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Error(res.Status)
		}
	}
	if n := closed.Load(); n != 2 {
		t.Errorf("%d closed", n)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestAuthorized(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	if httpapi.Authorized(r, "secret") || httpapi.Authorized(r, "") {
		t.Error("a request without a token was let in")
	}
	httpapi.Authorize(r, "secret")
	if !httpapi.Authorized(r, "secret") || httpapi.Authorized(r, "other") {
		t.Error("tokens have changed places")
	}
	r.Header.Set("Authorization", "secret")
	if httpapi.Authorized(r, "secret") {
		t.Error("a token without its scheme was let in")
	}
}

func TestRefuse(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	httpapi.Refuse(w, httpapi.Errorf(http.StatusNotFound, "not_found", "no %s", "such thing"))
	want := `{"error":{"code":"not_found","message":"no such thing"}}` + "\n"
	if w.Code != http.StatusNotFound || w.Body.String() != want || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("got %d %q %v", w.Code, w.Body, w.Header())
	}
}

func TestQuery(t *testing.T) {
	t.Parallel()
	q := httpapi.ParseQuery("user=alice&limit=10&sort=name", "bad")
	got := []any{q.Text("user", "", 10), q.Integer("limit", 100, 1, 1000), q.Choice("sort", "hashrate", "name"), q.Integer("offset", -1, 0, 9), q.Done()}
	if diff := cmp.Diff([]any{"alice", 10, "name", -1, nil}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for raw, want := range map[string]string{
		"user=a&user=b":                `parameter "user" is given 2 times`,
		"user=%zz":                     "the query is not well formed",
		"user=" + "0123456789a":        "parameter user is longer than 10 bytes",
		"limit=0":                      `limit = "0": must be an integer from 1 to 1000`,
		"limit=":                       `limit = "": must be an integer from 1 to 1000`,
		"sort=size":                    `sort = "size": must be one of hashrate, name`,
		"x=1":                          `unknown parameter "x"`,
		strings.Repeat("x", 64<<10+1):  "the query is longer than 65536 bytes",
		"sort=size&limit=-1&unknown=1": `limit = "-1": must be an integer from 1 to 1000`, // the first that is read
	} {
		q := httpapi.ParseQuery(raw, "bad")
		q.Text("user", "", 10)
		q.Integer("limit", 100, 1, 1000)
		q.Choice("sort", "hashrate", "name")
		err := q.Done()
		if err == nil || err.Error() != want {
			t.Errorf("%.40s: got %v, want %s", raw, err, want)
		}
	}
}

func TestLegacyUptime(t *testing.T) {
	t.Parallel()
	d := 26*time.Hour + 3*time.Minute + 4*time.Second + 900*time.Millisecond
	if got, want := httpapi.LegacyUptime(d), "0001 d 02 h 03 m 04 s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
