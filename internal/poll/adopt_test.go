package poll_test

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"btcpool/internal/poll"
	"btcpool/internal/testkit"
)

type listening struct {
	link poll.Link
	mu   sync.Mutex
	got  []byte
	err  error
}

func (o *listening) Serve(poll.Readiness) {
	var b [16]byte
	n, err := o.link.Read(b[:])
	o.mu.Lock()
	defer o.mu.Unlock()
	o.got = append(o.got, b[:n]...)
	o.err = err
	if err != nil {
		o.link.Want(false, false)
	}
}

// TestAdopt has a loop talk over a connection that was dialled, to its end.
func TestAdopt(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dialled, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	peer, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	l, err := poll.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	var goroutines sync.WaitGroup
	link, err := poll.Adopt(dialled, goroutines.Go, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ended:
				return
			default:
			}
			if err := l.Wait(true); err != nil {
				return
			}
			l.Turn()
		}
	}()
	o := &listening{link: link}
	l.Post(func() {
		if err := link.Attach(l, o); err != nil {
			t.Error(err)
		}
		if n, err := link.Write([]byte("hello")); n != 5 || err != nil {
			t.Errorf("%d bytes written, %v", n, err)
		}
	})
	heard := make([]byte, 5)
	if _, err := io.ReadFull(peer, heard); err != nil || string(heard) != "hello" {
		t.Fatalf("heard %q, %v", heard, err)
	}
	if _, err := peer.Write([]byte("good-bye")); err != nil {
		t.Fatal(err)
	}
	_ = peer.(*net.TCPConn).CloseWrite()
	testkit.Eventually(t, "the loop hears all", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return string(o.got) == "good-bye" && errors.Is(o.err, io.EOF)
	})
	l.Post(func() { link.Close(); close(ended) })
	<-done
	goroutines.Wait()
	l.Close()
}
