// Package operator is how the people who run a pool look at a Stratum server and act on it: an HTTP API on this
// machine, and btcpool's commands through Kafka, which ask all servers of a pool at once.
//
// It works on a Server, which is sserver, and promises not to keep it from its
// miners: one request is handled at a time, sessions are visited by their own
// loops, and nobody waits for what an operator does.
package operator

import (
	"context"
	"iter"
	"net/netip"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/config"
	"btcpool/internal/guard"
	"btcpool/internal/share"
	"btcpool/internal/userchain"
)

// Server is what is looked at and acted on.
type Server interface {
	Status() Status
	// Visit has each session that miners know of visited by its own loop, one after another, until ctx ends. The
	// Session is valid during the call.
	Visit(ctx context.Context, do func(Session)) error
	// SendAway sends all miners to a place, evenly over grace; in the end also those who were just coming when it
	// began.
	SendAway(ctx context.Context, grace time.Duration, to Place) error
	Guard() *guard.Guard
	// CountBan counts a ban of the operator's.
	CountBan()
	// SwitchAuto has users in auto mode mine other chains, by a command with an id, "" if it has none.
	SwitchAuto(id string, shares userchain.Shares) (Switched, error)
}

// Session is one connection, during a visit.
type Session interface {
	ID() uint32
	Address() netip.Addr
	Software() string
	// Workers are those logged in and, of a farm proxy, its miners': user and name.
	Workers() iter.Seq2[string, string]
	View() View
	// Miners are at most limit of those behind a farm proxy, from the first number above after on, and how many there
	// are in all. It is not ok when the session is no farm proxy's.
	Miners(after, limit int) (page []Miner, total int, ok bool)

	// Kick ends the session, with word of where to go if to is given.
	Kick(to *Place)
	// Ban ends the session because its address is banned.
	Ban()
	// Message has the miner show a text, and reports whether it is logged in.
	Message(text string) bool
	// SetDifficulty gives the session's miner a difficulty, or those of a farm proxy's that are meant. It reports
	// whether the session is logged in, and how many of a farm proxy's miners were meant.
	SetDifficulty(Order) (ok bool, miners int)
}

// Order is a difficulty for miners.
type Order struct {
	Difficulty bitcoin.Difficulty
	Fixed      bool    // it stays
	Number     *uint16 // the miner of a farm proxy that is meant; nil: any
	Meant      func(user, worker string) bool
}

// Place is where miners are sent; the zero value is where they came from.
type Place struct {
	Host string
	Port uint16
}

// ParsePlace reads host:port; "" is where miners came from.
func ParsePlace(text string) (p Place, err error) {
	if text != "" {
		p.Host, p.Port, err = config.Peer(text)
	}
	return p, err
}

// Status is a server in short.
type Status struct {
	Started     time.Time
	ServerID    uint32 // 0: none yet
	NotReady    error  // why; nil: it is ready
	Connections int64
	AgentMiners int64
	Sessions    map[string]int64       // by state
	Shares      map[share.Status]int64 // since the start; without what has not happened
	Job         *Job                   // that miners work on; nil: none yet
	Chains      []Chain                // none: there is one, without a name

	Listen            []string
	MaxConnections    int
	DefaultDifficulty float64
	ShareInterval     time.Duration
	Users             string // their source
}

// Chain is what Status says, of one of several chains.
type Chain struct {
	Name     string                 `json:"name"`
	NotReady error                  `json:"-"` // why it cannot be mined
	Sessions int64                  `json:"sessions"`
	Shares   map[share.Status]int64 `json:"-"`
	Job      *Job                   `json:"job"`
}

// Job is a job in short.
type Job struct {
	ID     uint64    `json:"id"`
	Height int32     `json:"height"`
	MadeAt time.Time `json:"made_at"` // UTC
}

// View is a session as the operator sees it.
type View struct {
	ID          uint32
	State       string
	Chain       string // "": there is one, without a name
	SubPool     string // for whose coinbase it works, if jobs have it; "": the pool's own
	Address     netip.Addr
	Listener    string
	Software    string
	Workers     []Worker
	Miner       Miner
	Floor       bitcoin.Difficulty
	VersionMask uint32
	ConnectedAt time.Time
	Miners      *int // behind a farm proxy; nil: it is none
	Jobs        int  // that it may send shares for
	UnsentBytes int
}

// Worker is whom shares are credited to.
type Worker struct {
	User   string
	UserID int32
	Name   string // without the user's
}

func (w Worker) fullName() string { return w.User + "." + w.Name }

// Miner is a machine with a difficulty of its own.
type Miner struct {
	Number             uint16 // this and the next two: only of a miner behind a farm proxy
	Worker             Worker
	Software           string
	Difficulty         bitcoin.Difficulty
	Fixed              bool
	Accepted, Rejected uint32    // shares
	LastShareAt        time.Time // accepted; zero: none
}

// Switched is what came of a command for users in auto mode.
type Switched struct {
	From, To           string // chains; the largest of several
	Users, Connections int    // that were sent elsewhere
}
