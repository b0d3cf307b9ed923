package sserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/bus"
	"btcpool/internal/retry"
	"btcpool/internal/service"
	"btcpool/internal/share"
)

const (
	// presenceEvery is how often a server says that it serves, with nobody else under its id.
	presenceEvery = 10 * time.Minute
	// twinPace is how often it does while it has heard of another in the last twinMemory.
	twinPace   = 2 * time.Second
	twinMemory = 15 * time.Second
	// rewindDeaf is how long nothing is heard once the topic is read again: what is in it may be of processes that are gone.
	// A twin that lives goes on.
	rewindDeaf = time.Minute
	// maxTwins bounds how many are told apart.
	maxTwins = 16
)

// twins are other processes that serve under this one's id: both hand out the same extranonces, so that miners may do
// the same work twice. Each server says in the topic of common events that it serves, and answers those that say so of
// the same id. Who is heard twice is alive: the first time may be the last word of a process that this one replaces.
type twins struct {
	instance  string // names this process and whom it goes on for; of two the one that started later has the greater one
	listening chan struct{}
	fault     *service.Fault

	mu    sync.Mutex
	heard map[string]presence
	deaf  time.Time // until when
}

// presence is what is known of another process.
type presence struct {
	epoch uint32
	times int // that it was heard
	last  time.Time
}

func (p presence) alive() bool { return p.times > 1 }

var errTwin = errors.New("another process serves under the same server id: give each sserver a server_id of its own")

func newTwins(log zerolog.Logger, now time.Time) *twins {
	name := fmt.Appendf(nil, "%016x", now.UnixNano())
	var chance [8]byte
	rand.Read(chance[:]) // never fails
	return &twins{
		instance:  string(hex.AppendEncode(name, chance[:])),
		listening: make(chan struct{}),
		fault: service.NewFault(log, zerolog.ErrorLevel,
			"server id is in use twice", "server id is in use once again"),
		heard: make(map[string]presence),
	}
}

// goOnAs takes the name of the process that this one goes on for, before it shows its presence.
func (t *twins) goOnAs(instance string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.instance = instance
}

// hear takes in that another process serves under this one's id.
func (t *twins) hear(instance string, epoch uint32, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, known := t.heard[instance]
	if now.Before(t.deaf) || instance == t.instance || !known && len(t.heard) == maxTwins {
		return
	}
	t.heard[instance] = presence{epoch, p.times + 1, now}
}

// rewound is called when the topic is read again from its beginning.
func (t *twins) rewound(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.deaf = now.Add(rewindDeaf)
}

// look forgets who has fallen silent. It returns whether somebody is to be answered, and an epoch to go on with if a twin
// that started earlier has this one's, else 0.
func (t *twins) look(epoch uint32, now time.Time) (answer bool, next uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var err error
	for instance, p := range t.heard {
		switch {
		case now.Sub(p.last) > twinMemory:
			delete(t.heard, instance)
		case p.alive():
			err = errTwin
			if instance < t.instance && p.epoch == epoch {
				next = epoch + 1
			}
		}
	}
	t.fault.Set(err)
	return len(t.heard) > 0, next
}

// forget is called when a server takes an id.
func (t *twins) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.heard)
	t.fault.Set(nil)
}

// count returns how many there are, and how many of them started earlier.
func (t *twins) count() (all, earlier int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for instance, p := range t.heard {
		if p.alive() {
			all++
			if instance < t.instance {
				earlier++
			}
		}
	}
	return all, earlier
}

// err is for Ready: the one that started first is, so that miners have one server.
func (t *twins) err() error {
	if _, earlier := t.count(); earlier > 0 {
		return errTwin
	}
	return nil
}

// hearServers listens for other servers until ctx ends.
func (s *Service) hearServers(ctx context.Context) error {
	mark := []byte(`"` + share.ServerServing + `"`) // most events are of miners
	return s.firstChain().bus.Read(ctx, s.firstChain().cfg.Kafka.Topics.CommonEvents, bus.Latest(), func(m bus.Message) error {
		if !bytes.Contains(m.Value, mark) {
			return nil
		}
		e, err := share.ParseEvent(m.Value)
		if err == nil && e.Action == share.ServerServing && e.SessionID>>24 == s.serverID.Load() {
			s.twins.hear(e.Instance, e.Epoch, time.Now())
		}
		return nil
	}, bus.CaughtUp(func() { close(s.twins.listening) }), bus.Rewound(func(int, int64) { s.twins.rewound(time.Now()) }))
}

// showPresence says that this process serves as a server, until ctx ends. It begins when it can hear the answers.
func (s *Service) showPresence(ctx context.Context, id uint8) error {
	s.twins.forget()
	select {
	case <-s.twins.listening:
	case <-ctx.Done():
		return nil
	}
	for last := (time.Time{}); ; {
		now := time.Now()
		answer, next := s.twins.look(s.epoch(), now)
		if next > 0 && s.cfg.ServerID != 0 { // what is leased comes with an epoch that nobody has
			if err := s.setEpoch(next); err != nil {
				s.log.Error().Err(err).Msg("shares may be taken for those of another process")
			}
		}
		if answer || now.Sub(last) >= presenceEvery {
			last = now
			s.firstChain().events.add(share.Event{
				Time:      now,
				Action:    share.ServerServing,
				SessionID: uint32(id) << 24,
				Instance:  s.twins.instance,
				Epoch:     s.epoch(),
			})
		}
		if !retry.Sleep(ctx, twinPace) {
			return nil
		}
	}
}
