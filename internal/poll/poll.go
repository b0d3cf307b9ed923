// Package poll serves many connections by a few event loops.
//
// A Loop is one goroutine, which alone touches its links and what belongs to
// them, so that nothing of that needs a lock; other goroutines have it do
// something by Loop.Post. The owner of a link is served when the link has what
// it wants: something to read, or room to write. An owner that does not want to
// read is how a peer is held back.
//
// Nothing here waits for a peer. What a link does not take at once is kept in an Outbox, up to a limit and for a time;
// a peer that exceeds them is ErrSlow.
//
// On Linux a plain connection is a socket that epoll watches: it costs no goroutine, no buffer and no allocation when
// it is served. TLS connections, and all on other systems, have goroutines behind the same interface.
package poll

import "errors"

// ErrSlow means that the peer does not read what it is sent.
var ErrSlow = errors.New("does not read")

// Readiness is what the owner of a link can do now.
type Readiness uint8

// The parts of a Readiness.
const (
	CanRead  Readiness = 1 << iota // or learn by reading why that is over
	CanWrite                       // again, after the link had not taken all
	Broken                         // the link, of which the owner does not want to read
)

// Owner is whom a link belongs to. Serve is called by the link's loop, and not after the link was closed.
type Owner interface{ Serve(r Readiness) }

// Link is a connection. No method waits. A link that was not attached yet can only be attached or closed; after that,
// all calls are made by its loop.
type Link interface {
	// Attach gives the link to a loop and an owner, who wants to read. The link has to be closed even if that fails.
	Attach(l *Loop, o Owner) error
	// Want says what the owner waits for: something to read, or room to write.
	Want(read, write bool)
	// Read returns 0 and no error when there is nothing to read. By errors.Is, the error is io.EOF at the end, ErrSlow
	// when Write's bytes were not taken.
	Read(b []byte) (int, error)
	// Write takes as much of b as it can at once, maybe nothing, and does not keep b.
	Write(b []byte) (int, error)
	// Sent reports whether closing the link loses nothing that Write took.
	Sent() bool
	// CloseWrite tells the peer that nothing more will come, if it can. A link that is closed with input that nobody
	// has read is reset, which may take the last words with it: the owner reads on for a moment after CloseWrite.
	CloseWrite() bool
	// Close is called once.
	Close()

	// Copy returns a copy of what Pass returns, for another process to be ready; it is the caller's. The link goes on,
	// and its peer hears of its end when the copies have been closed, too. -1: there is none before Pass.
	Copy() (fd int, err error)
	// Pass returns a descriptor by which another process can go on with the connection: see Passed. It stays the link's.
	// After it only Keep, which takes it back, or Leave may be called.
	Pass() (fd int, err error)
	Keep()
	// Leave, for which a Copy is as good, closes the link here and says nothing to the peer, whom another process serves
	// now. A stream relays between the two until one of them ends, or stop is called, which is nil for other links.
	Leave() (stop func())
}
