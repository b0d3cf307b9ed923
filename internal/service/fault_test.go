package service_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"btcpool/internal/service"
)

func TestFault(t *testing.T) {
	t.Parallel()
	var lines bytes.Buffer
	f := service.NewFault(zerolog.New(&lines), zerolog.WarnLevel, "disk is full", "disk has room")
	if err := f.Err(); err != nil {
		t.Errorf("before the first try: %v", err)
	}
	errWaiting, errFull := errors.New("waiting"), errors.New("no space left")
	f.Await(errWaiting)
	if err := f.Err(); !errors.Is(err, errWaiting) {
		t.Errorf("waiting: %v", err)
	}
	for _, outcome := range []error{nil, errFull, errFull, nil, nil, errFull} {
		f.Set(outcome)
		if err := f.Err(); !errors.Is(err, outcome) {
			t.Errorf("after %v: %v", outcome, err)
		}
	}
	want := []string{
		`{"level":"warn","error":"no space left","message":"disk is full"}`,
		`{"level":"info","message":"disk has room"}`,
		`{"level":"warn","error":"no space left","message":"disk is full"}`,
	}
	if got := strings.TrimSpace(lines.String()); got != strings.Join(want, "\n") {
		t.Errorf("logged:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}
