package noderpc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"slices"
	"time"

	"btcpool/internal/retry"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/go-zeromq/zmq4"
	"github.com/rs/zerolog"
)

const (
	topicHashBlock = "hashblock"
	redialPause    = 500 * time.Millisecond
	greetingLimit  = 10 * time.Second
)

// SubscribeOption changes what SubscribeBlocks does.
type SubscribeOption func(*subscription)

// OnMissed calls f with the number of messages that the node sent and we did
// not get.
func OnMissed(f func(n uint32)) SubscribeOption {
	return func(s *subscription) { s.onMissed = f }
}

// OnState calls f with true when there is a subscription, and with false when it
// is lost.
func OnState(f func(up bool)) SubscribeOption {
	return func(s *subscription) { s.onState = f }
}

// Silence makes a new subscription when nothing was heard for so long: a host
// that vanished is silent for ever. 0: never.
func Silence(limit time.Duration) SubscribeOption {
	return func(s *subscription) { s.silence = limit }
}

// SubscribeBlocks calls onBlock with the hash of each block that the node at
// addr, its zmqpubhashblock, puts at the tip of its chain. It waits for the
// node to appear, subscribes again when it went away, and returns nil when ctx
// ends, or an error at once when addr is not an address. onBlock should return
// soon.
//
// Messages sent while there is no connection are lost, so this is a hint to
// look at the node and cannot be the only one.
func SubscribeBlocks(ctx context.Context, addr string, log zerolog.Logger, onBlock func(hash chainhash.Hash), opts ...SubscribeOption) error {
	if err := validateZMQ(addr); err != nil {
		return err
	}
	s := &subscription{
		addr:     addr,
		log:      log.With().Str("zmq", addr).Logger(),
		onBlock:  onBlock,
		onMissed: func(uint32) {},
		onState:  func(bool) {},
	}
	for _, opt := range opts {
		opt(s)
	}
	return s.run(ctx)
}

type subscription struct {
	addr     string
	log      zerolog.Logger
	onBlock  func(chainhash.Hash)
	onMissed func(uint32)
	onState  func(bool)
	silence  time.Duration // 0: unlimited

	next    uint32 // sequence expected of the next message
	started bool   // whether a message was seen, so that next is known
}

// errSilent ends a session in which nothing is heard.
var errSilent = errors.New("nothing heard for long")

// run keeps a session alive. zmq4 can reconnect by itself, but gives up for
// ever when a greeting fails, as it does behind a proxy whose node is down.
func (s *subscription) run(ctx context.Context) error {
	up, down := false, false // what was said last; neither, at first
	for ctx.Err() == nil {
		err := s.session(ctx, func() {
			if !up {
				s.log.Info().Msg("subscribed to the node's blocks")
				s.onState(true)
			}
			up, down = true, false
		})
		if errors.Is(err, errSilent) && up {
			s.log.Debug().Stringer("silence", s.silence).Msg("subscribing to the node's blocks again")
			continue
		}
		if up {
			up = false
			s.onState(false)
		}
		if ctx.Err() == nil && !down {
			down = true
			s.log.Warn().Err(err).Msg("no subscription to the node's blocks: is the node running with zmqpubhashblock at this address?")
		}
		retry.Sleep(ctx, redialPause)
	}
	return nil
}

// session subscribes once and hands on blocks until the connection ends.
func (s *subscription) session(ctx context.Context, subscribed func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sub := zmq4.NewSub(ctx,
		zmq4.WithDialerTimeout(greetingLimit),
		zmq4.WithDialerMaxRetries(0),
		zmq4.WithLogger(log.New(io.Discard, "", 0)), // what it would say comes back as an error
	)
	defer sub.Close()
	if err := sub.SetOption(zmq4.OptionSubscribe, topicHashBlock); err != nil {
		return err
	}
	if err := s.dial(ctx, sub); err != nil {
		return err
	}
	subscribed()
	heard := func() {}
	if s.silence > 0 {
		limit := time.AfterFunc(s.silence, func() { cancel(errSilent) })
		defer limit.Stop()
		heard = func() { limit.Reset(s.silence) }
	}
	for first := true; ; first = false {
		msg, err := sub.Recv()
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if err != nil {
			return err
		}
		heard()
		if err := s.receive(msg.Frames, first); err != nil {
			s.log.Warn().Err(err).Msg("message of the node ignored")
		}
	}
}

// dial connects sub. zmq4 sets no limit to the exchange of greetings and cannot
// be stopped in it, so a silent peer keeps this one goroutine waiting.
func (s *subscription) dial(ctx context.Context, sub zmq4.Socket) error {
	connected := make(chan error, 1)
	go func() { connected <- sub.Dial(s.addr) }()

	late := time.NewTimer(greetingLimit)
	defer late.Stop()
	for {
		select {
		case err := <-connected:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			s.log.Warn().Msg("peer sends no ZeroMQ greeting: is this the node's zmqpubhashblock address?")
		}
	}
}

// receive handles one message: topic, hash in display order, and a sequence
// number, little-endian, that counts the messages of the topic (Bitcoin Core,
// doc/zmq.md).
func (s *subscription) receive(frames [][]byte, firstOfSession bool) error {
	if len(frames) != 3 || string(frames[0]) != topicHashBlock || len(frames[1]) != chainhash.HashSize || len(frames[2]) != 4 {
		return fmt.Errorf("not a %s message: %d frames", topicHashBlock, len(frames))
	}
	seq := binary.LittleEndian.Uint32(frames[2])
	// A node that was restarted counts from 0 again.
	restarted := firstOfSession && seq < s.next
	if missed := seq - s.next; s.started && !restarted && missed != 0 {
		s.onMissed(missed)
		s.log.Warn().Uint32("missed", missed).Msg("messages of the node were lost")
	}
	s.started, s.next = true, seq+1

	hash := chainhash.Hash(frames[1])
	slices.Reverse(hash[:])
	s.onBlock(hash)
	return nil
}
