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

// Subscription is to the blocks of a node. What is optional may be nil or 0.
type Subscription struct {
	// Addr is the node's zmqpubhashblock.
	Addr string
	Log  zerolog.Logger
	// OnBlock gets the hash of each block that the node puts at the tip of its chain. It should return soon.
	OnBlock func(hash chainhash.Hash)
	// OnMissed, which is optional, gets the number of messages that the node sent and we did not get.
	OnMissed func(n uint32)
	// OnState, which is optional, gets true when there is a subscription, and false when it is lost.
	OnState func(up bool)
	// Silence, which is optional, is after how long without a word there is a new
	// subscription: a host that vanished is silent for ever.
	Silence time.Duration
}

// SubscribeBlocks keeps a subscription. It waits for the node to appear, subscribes again when it went away, and
// returns nil when ctx ends, or an error at once when the address is none.
//
// Messages sent while there is no connection are lost, so this is a hint to look at the node and cannot be the only
// one.
func SubscribeBlocks(ctx context.Context, sub Subscription) error {
	if err := validateZMQ(sub.Addr); err != nil {
		return err
	}
	s := &subscriber{Subscription: sub}
	s.Log = s.Log.With().Str("zmq", sub.Addr).Logger()
	return s.run(ctx)
}

type subscriber struct {
	Subscription

	next    uint32 // sequence expected of the next message
	started bool   // whether a message was seen, so that next is known
}

func (s *subscriber) state(up bool) {
	if s.OnState != nil {
		s.OnState(up)
	}
}

// errSilent ends a session in which nothing is heard.
var errSilent = errors.New("nothing heard for long")

// run keeps a session alive. zmq4 can reconnect by itself, but gives up for ever when a greeting fails, as it does
// behind a proxy whose node is down.
func (s *subscriber) run(ctx context.Context) error {
	up, down := false, false // what was said last; neither, at first
	for ctx.Err() == nil {
		err := s.session(ctx, func() {
			if !up {
				s.Log.Info().Msg("subscribed to the node's blocks")
				s.state(true)
			}
			up, down = true, false
		})
		if errors.Is(err, errSilent) && up {
			s.Log.Debug().Stringer("silence", s.Silence).Msg("subscribing to the node's blocks again")
			continue
		}
		if up {
			up = false
			s.state(false)
		}
		if ctx.Err() == nil && !down {
			down = true
			s.Log.Warn().Err(err).Msg("no subscription to the node's blocks: is the node running with zmqpubhashblock at this address?")
		}
		retry.Sleep(ctx, redialPause)
	}
	return nil
}

// session subscribes once and hands on blocks until the connection ends.
func (s *subscriber) session(ctx context.Context, subscribed func()) error {
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
	if s.Silence > 0 {
		limit := time.AfterFunc(s.Silence, func() { cancel(errSilent) })
		defer limit.Stop()
		heard = func() { limit.Reset(s.Silence) }
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
			s.Log.Warn().Err(err).Msg("message of the node ignored")
		}
	}
}

// dial connects sub. zmq4 sets no limit to the exchange of greetings and cannot be stopped in it, so a silent peer
// keeps this one goroutine waiting.
func (s *subscriber) dial(ctx context.Context, sub zmq4.Socket) error {
	connected := make(chan error, 1)
	go func() { connected <- sub.Dial(s.Addr) }()

	late := time.NewTimer(greetingLimit)
	defer late.Stop()
	for {
		select {
		case err := <-connected:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			s.Log.Warn().Msg("peer sends no ZeroMQ greeting: is this the node's zmqpubhashblock address?")
		}
	}
}

// receive handles one message: topic, hash in display order, and a sequence number, little-endian, that counts the
// messages of the topic (Bitcoin Core, doc/zmq.md).
func (s *subscriber) receive(frames [][]byte, firstOfSession bool) error {
	if len(frames) != 3 || string(frames[0]) != topicHashBlock || len(frames[1]) != chainhash.HashSize || len(frames[2]) != 4 {
		return fmt.Errorf("not a %s message: %d frames", topicHashBlock, len(frames))
	}
	seq := binary.LittleEndian.Uint32(frames[2])
	// A node that was restarted counts from 0 again.
	restarted := firstOfSession && seq < s.next
	if missed := seq - s.next; s.started && !restarted && missed != 0 {
		if s.OnMissed != nil {
			s.OnMissed(missed)
		}
		s.Log.Warn().Uint32("missed", missed).Msg("messages of the node were lost")
	}
	s.started, s.next = true, seq+1

	hash := chainhash.Hash(frames[1])
	slices.Reverse(hash[:])
	s.OnBlock(hash)
	return nil
}
