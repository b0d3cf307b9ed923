package regnode

import (
	"context"
	"encoding/binary"
	"io"
	"log"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/go-zeromq/zmq4"
)

// publishQueue bounds the messages that wait for slow subscribers; newer ones are dropped, as with Bitcoin Core's
// zmqpub…hwm.
const publishQueue = 1000

// publisher sends ZeroMQ messages of three parts: topic, body, and a number, little-endian, that counts the messages of
// the topic (Bitcoin Core, doc/zmq.md).
type publisher struct {
	socket zmq4.Socket
	seq    uint32 // of either topic: both have one message a block
}

func newPublisher(addr string) (*publisher, error) {
	socket := zmq4.NewPub(context.Background(), zmq4.WithLogger(log.New(io.Discard, "", 0)))
	if err := socket.SetOption(zmq4.OptionHWM, publishQueue); err != nil {
		return nil, err
	}
	if err := socket.Listen("tcp://" + addr); err != nil {
		return nil, err
	}
	return &publisher{socket: socket}, nil
}

// publish queues the messages for a new tip. The socket keeps raw.
func (p *publisher) publish(hash *chainhash.Hash, raw []byte) {
	display := slices.Clone(hash[:])
	slices.Reverse(display)
	seq := binary.LittleEndian.AppendUint32(nil, p.seq)
	p.seq++
	// A PUB socket drops what it cannot send, so there is no error to handle.
	_ = p.socket.Send(zmq4.NewMsgFrom([]byte("hashblock"), display, seq))
	_ = p.socket.Send(zmq4.NewMsgFrom([]byte("rawblock"), raw, seq))
}
