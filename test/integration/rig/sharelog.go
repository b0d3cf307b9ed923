//go:build integration

package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/testkit"
)

// WaitLogged waits until the share log holds every acknowledged share, once, and returns all that it holds, refused
// shares too.
//
// A share that was on disk when sserver died was accepted though its answer got lost: the log may hold it, but no more
// of them than were left unanswered.
func (p *Pool) WaitLogged(t testing.TB, acks []Ack, unanswered int64) (log []share.Share) {
	t.Helper()
	testkit.Until(t, 30*time.Second, "the share log holds what was acknowledged", func(context.Context) error {
		log = p.ReadLog(t)
		extra, err := missing(acks, log)
		if err == nil && int64(extra) > unanswered {
			err = fmt.Errorf("%d shares more than were acknowledged, %d were left unanswered", extra, unanswered)
		}
		return err
	})
	return log
}

// ReadLog returns every share of the log, judged or refused.
func (p *Pool) ReadLog(t testing.TB) (log []share.Share) {
	t.Helper()
	days, err := sharefile.Days(p.Log, "BTC")
	if err != nil {
		t.Fatal(err)
	}
	for _, day := range days {
		r, err := sharefile.Open(sharefile.Path(p.Log, "BTC", day))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for {
			record, err := r.Next()
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			var s share.Share
			if err := s.ParseBody(record); err != nil {
				t.Fatal(err)
			}
			log = append(log, s)
		}
	}
	return log
}

// key tells shares apart on both sides of the socket.
type key struct {
	session, nonce, versionBits uint32
}

// missing returns how many accepted shares of the log were not acknowledged; the error tells of acknowledged ones that
// the log does not have, or has twice.
func missing(acks []Ack, log []share.Share) (extra int, err error) {
	logged := map[key]int{}
	for _, s := range log {
		if s.Status == share.StatusAccept {
			logged[key{s.SessionID, s.Nonce, s.VersionBits}]++
		}
	}
	for k, n := range logged {
		if n > 1 {
			return 0, fmt.Errorf("share %+v is in the log %d times", k, n)
		}
	}
	total := len(logged)
	for _, a := range acks {
		var session uint32
		if _, err := fmt.Sscanf(a.Session, "%08x", &session); err != nil {
			return 0, fmt.Errorf("session %q: %w", a.Session, err)
		}
		k := key{session, a.Nonce, a.VersionBits}
		if logged[k] == 0 {
			return 0, fmt.Errorf("acknowledged share %+v is not in the log of %d", k, total)
		}
		delete(logged, k)
	}
	return len(logged), nil
}
