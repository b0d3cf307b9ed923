package sserver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"btcpool/internal/chainwatch"
	"btcpool/internal/durable"
	"btcpool/internal/retry"
	"btcpool/internal/service"
	"btcpool/internal/telemetry"
	"btcpool/internal/upgrade"
	"btcpool/internal/userchain"
	"btcpool/internal/users"
	"btcpool/sserver/operator"
)

// switchboard has each user's sessions work on the chain that the user's node says. A user who has no id there stays
// where it is, and so does one whose chain is not known here, or has no job yet.
type switchboard struct {
	srv     *Service
	log     zerolog.Logger
	nodes   *chainwatch.Watcher
	single  string                 // whose node all users follow; "": each its own
	file    string                 // what was commanded last for users in auto mode
	results *prometheus.CounterVec // result
	seconds prometheus.Histogram
	asking  *chainwatch.Registrations // nil: nobody is registered

	// mu is not held while anything is waited for. Sessions are told under it, so that the last word is the latest.
	mu      sync.Mutex
	users   map[string]*resident
	waiting map[string]string // users who cannot be where they are to be, and why
	auto    autoChain
	passing map[string]string // what users were moved to since another process began to take over; nil: none does
	patient context.Context   // of those who wait for a registration
	abandon context.CancelFunc
}

// resident is a user who has sessions here.
type resident struct {
	chain    uint8 // where they were sent last
	sessions map[*session]struct{}
}

// autoChain is what users in auto mode mine.
type autoChain struct {
	ID     string           `json:"id"` // of the command; "": none has come yet
	Shares userchain.Shares `json:"shares"`
}

// Why a user is not where it is to be.
const (
	noID      = "no id"
	noChain   = "unknown chain"
	noJob     = "no job"
	otherUser = "another user"
)

// retryMoves is how often those are tried again who could not be moved.
const retryMoves = 2 * time.Second

// openSwitchboard makes one if users have nodes.
func (s *Service) openSwitchboard(deps service.Deps) error {
	if s.cfg.UserChain.Path == "" {
		return nil
	}
	set := telemetry.Metrics(deps.Metrics, "sserver")
	b := &switchboard{
		srv: s, log: s.log, single: s.cfg.singleChainUser(), file: filepath.Join(s.cfg.DataDir, "auto_chain.json"),
		results: set.Counters("switches_total", "Users sent to another chain, and those who are to be and cannot, by the reason.", "result"),
		seconds: set.Histogram("switch_seconds", "From hearing of a switch to the new chain's job, by session.", buckets),
		users:   make(map[string]*resident), waiting: make(map[string]string),
	}
	set.GaugeFunc("users_waiting", "Users who have sessions and are not on the chain that they are to mine.", func() float64 {
		b.mu.Lock()
		defer b.mu.Unlock()
		return float64(len(b.waiting))
	})
	if err := b.readAuto(); err != nil {
		return err
	}
	var err error
	u := s.cfg.UserChain
	b.nodes, err = chainwatch.New(s.registry, chainwatch.Config{
		Path: u.Path, File: filepath.Join(s.cfg.DataDir, "userchain.json"), Settings: u.Settings, Changed: b.changed,
	}, deps)
	if err != nil {
		return err
	}
	s.closing.Add(b.nodes.Close)
	b.asking = b.nodes.Registrations(u.AutoReg, deps)
	b.letGo()
	s.board = b
	return nil
}

// leader is the user whose node a user follows.
func (b *switchboard) leader(user string) string { return cmp.Or(b.single, user) }

// last is what is known of the node that a user follows.
func (b *switchboard) last(user string) (is chainwatch.Answer, known bool) {
	return b.nodes.Last(b.leader(user))
}

// run follows users until ctx ends.
func (b *switchboard) run(ctx context.Context) {
	var following sync.WaitGroup
	following.Go(func() { _ = b.nodes.Run(ctx) }) // ends with ctx only
	following.Go(func() {
		if b.srv.before.Wait(ctx) {
			b.nodes.KeepFile(ctx)
		}
	})
	for retry.Sleep(ctx, retryMoves) {
		b.tryAgain(ctx)
	}
	following.Wait()
}

// target returns the index of the chain that a user is to mine by its node; negative: it is none of ours. b.mu is held.
func (b *switchboard) target(user string, is chainwatch.Answer) int {
	switch {
	case !is.Known:
		return b.srv.first
	case is.Value.Chain == userchain.Auto:
		return b.srv.cfg.chainIndex(b.auto.Shares.Of(b.leader(user)))
	}
	return b.srv.cfg.chainIndex(is.Value.Chain)
}

// id returns what a user's id is on a chain: as its node says, else as the chain's list has it.
func (b *switchboard) id(chain int, user string, is chainwatch.Answer) (int32, bool) {
	if id := is.Value.PUIDs[b.srv.chains[chain].name]; id > 0 && user == b.leader(user) {
		return id, true
	}
	return b.list(chain).Cached(user)
}

// knownID is id by what is known of the user's node.
func (b *switchboard) knownID(chain uint8, user string) (int32, bool) {
	is, _ := b.last(user)
	return b.id(int(chain), user, is)
}

// subPool is the one for whose coinbase a user works, by what is known of its node; before, if nothing is.
func (b *switchboard) subPool(user, before string) string {
	if is, known := b.last(user); known {
		return is.Value.Subpool
	}
	return before
}

// list has those who may mine a chain, at whatever place.
func (b *switchboard) list(chain int) *users.List { return b.srv.ports[0].users[chain] }

// place is where a user is to begin.
type place struct {
	chain   uint8
	id      int32
	subPool string // "": the server's
}

// place finds out where a user is to begin: on the chain that its node says if it has an id there, else where it was
// before, else by default, else wherever it has one. The error wraps users.ErrUnknown if it has none and will not get
// any.
func (b *switchboard) place(ctx context.Context, user string) (place, error) {
	leader := b.leader(user)
	is, ok := b.nodes.Use(leader)
	defer b.nodes.Leave(leader)
	if !ok {
		var err error
		if is, err = b.nodes.Ask(ctx, leader); err != nil {
			return place{}, err
		}
	}
	b.mu.Lock()
	target := b.target(user, is)
	b.mu.Unlock()
	order := []int{target, b.srv.cfg.chainIndex(b.nodes.Mined(user)), b.srv.first}
	for i := range b.srv.chains {
		order = append(order, i)
	}
	order = slices.DeleteFunc(order, func(i int) bool { return i < 0 })
	for _, i := range order {
		if id, ok := b.id(i, user, is); ok {
			return place{uint8(i), id, is.Value.Subpool}, nil
		}
	}
	var away error
	for n, i := range order {
		if slices.Contains(order[:n], i) {
			continue
		}
		id, err := b.list(i).ID(ctx, user) // has a deadline of its own
		switch {
		case err == nil:
			return place{uint8(i), id, is.Value.Subpool}, nil
		case !errors.Is(err, users.ErrUnknown):
			away = err
		}
	}
	if away != nil { // one that is not asked may know the user
		return place{}, away
	}
	return place{}, fmt.Errorf("%s: %w", user, users.ErrUnknown)
}

// begin is place; a user that is not known is asked for, if that is configured, and looked for until it is.
func (b *switchboard) begin(ctx context.Context, user string, request userchain.Request) (place, error) {
	at, err := b.place(ctx, user)
	if !errors.Is(err, users.ErrUnknown) || b.asking == nil {
		return at, err
	}
	ctx, cancel := context.WithTimeout(ctx, b.srv.cfg.UserChain.RegistrationTimeout.Std())
	defer cancel()
	b.mu.Lock()
	patient := b.patient
	b.mu.Unlock()
	defer context.AfterFunc(patient, cancel)()
	if err := b.asking.Wait(ctx, user, request); err != nil {
		return place{}, err
	}
	at, err = b.place(ctx, user)
	for errors.Is(err, users.ErrUnknown) && retry.Sleep(ctx, chainwatch.LookInterval) { // lists take a moment to have it
		at, err = b.place(ctx, user)
	}
	return at, err
}

// letGo ends the wait of all for their registration: their sessions are ended.
func (b *switchboard) letGo() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.abandon != nil {
		b.abandon()
	}
	b.patient, b.abandon = context.WithCancel(context.Background())
}

// join has a session follow its user, whose first session it may be.
func (b *switchboard) join(s *session) {
	user := s.Workers[0].UserName
	b.nodes.Follow(b.leader(user))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mines(user, s.Chain)
	r := b.users[user]
	if r == nil {
		r = &resident{chain: s.Chain, sessions: make(map[*session]struct{})}
		b.users[user] = r
	}
	r.sessions[s] = struct{}{}
	s.follows = true
	// The node may say something else since it was asked.
	if to, why := b.goal(user); why != "" {
		b.wait(user, why)
	} else if is, _ := b.last(user); to != s.Chain || is.Value.Subpool != s.SubPool {
		heard := time.Now()
		s.post(func() { s.move(to, heard) })
	}
}

// mines notes what a user mines. b.mu is held.
func (b *switchboard) mines(user string, chain uint8) {
	name := b.srv.chains[chain].name
	b.nodes.Mines(user, name)
	if b.passing != nil {
		b.passing[user] = name
	}
}

// goal returns the chain that a user is to be on, or why it cannot be there. b.mu is held.
func (b *switchboard) goal(user string) (to uint8, why string) {
	is, known := b.last(user)
	if !known {
		return b.users[user].chain, ""
	}
	i := b.target(user, is)
	if i < 0 {
		return 0, noChain
	}
	to = uint8(i)
	if _, ok := b.id(i, user, is); !ok {
		return to, noID
	}
	if to != b.users[user].chain && b.srv.chains[i].jobs.round.Load() == nil {
		return to, noJob
	}
	return to, ""
}

// leave is the end of join.
func (b *switchboard) leave(s *session) {
	if !s.follows {
		return
	}
	s.follows = false
	user := s.Workers[0].UserName
	b.mu.Lock()
	if r := b.users[user]; r != nil {
		if delete(r.sessions, s); len(r.sessions) == 0 {
			delete(b.users, user)
			delete(b.waiting, user)
		}
	}
	b.mu.Unlock()
	b.nodes.Leave(b.leader(user))
}

// changed is called when something was heard of a user's node.
func (b *switchboard) changed(user string, _ chainwatch.Answer, heard time.Time) {
	if b.single != "" {
		b.srv.commands.Followed(b.settleAll(heard))
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle(user, heard)
}

// settleAll settles all users, who follow one node.
func (b *switchboard) settleAll(heard time.Time) (done operator.Switched) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for user, r := range b.users {
		from := r.chain
		if moved, sessions := b.settle(user, heard); moved {
			done.From, done.To = b.srv.chains[from].name, b.srv.chains[r.chain].name
			done.Users++
			done.Connections += sessions
		}
	}
	return done
}

// settle has the sessions of a user go where it is to be, and reports whether that is somewhere else, and how many there
// are. b.mu is held.
func (b *switchboard) settle(user string, heard time.Time) (moved bool, sessions int) {
	r := b.users[user]
	if r == nil {
		return false, 0
	}
	to, why := b.goal(user)
	if why != "" {
		b.wait(user, why)
		return false, 0
	}
	if b.waiting[user] != otherUser {
		delete(b.waiting, user)
	}
	c := b.srv.chains[to]
	if moved = r.chain != to; moved {
		b.results.WithLabelValues("moved").Inc()
		b.log.Info().Str("user", user).Str("from", b.srv.chains[r.chain].name).Str("to", c.name).Int("sessions", len(r.sessions)).Msg("user switched")
		b.mines(user, to)
	}
	r.chain = to
	for s := range r.sessions {
		s.post(func() { s.move(to, heard) })
	}
	return moved, len(r.sessions)
}

// wait notes why a user cannot be where it is to be. b.mu is held.
func (b *switchboard) wait(user, why string) {
	if b.waiting[user] != why {
		b.waiting[user] = why
		b.results.WithLabelValues(why).Inc()
		b.log.Warn().Str("user", user).Str("reason", why).Msg("user stays on its chain")
	}
}

// stuck is called when a session of a user cannot be moved for others on the connection, and when it can.
func (b *switchboard) stuck(user string, is bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case is:
		b.wait(user, otherUser)
	case b.waiting[user] == otherUser:
		delete(b.waiting, user)
	}
}

// maxAsked is how many of those who lack an id are asked for at a time.
const maxAsked = 8

// tryAgain tries to move those who could not be.
func (b *switchboard) tryAgain(ctx context.Context) {
	b.mu.Lock()
	waiting := maps.Clone(b.waiting)
	b.mu.Unlock()
	var g errgroup.Group
	g.SetLimit(maxAsked)
	for user, why := range waiting {
		g.Go(func() error {
			if why == noID {
				b.askID(ctx, user)
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			b.settle(user, time.Now())
			return nil
		})
	}
	_ = g.Wait()
}

// askID has the list of the chain that a user is to mine find out about it: some make users then.
func (b *switchboard) askID(ctx context.Context, user string) {
	is, _ := b.last(user)
	b.mu.Lock()
	to := b.target(user, is)
	b.mu.Unlock()
	if to >= 0 {
		_, _ = b.list(to).ID(ctx, user) // it is cached then, or not
	}
}

// Why a command is not done.
var (
	errNoChange = errors.New("no change")
	errDone     = errors.New("done already")
)

// switchAuto has users in auto mode mine something else. The command is on disk then.
func (b *switchboard) switchAuto(id string, shares userchain.Shares) (done operator.Switched, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	done.From = b.auto.Shares.Largest()
	done.To = shares.Largest()
	for _, chain := range slices.Sorted(maps.Keys(shares)) {
		if shares[chain] > 0 && b.srv.cfg.chainIndex(chain) < 0 {
			return done, fmt.Errorf("unknown chain %s", chain)
		}
	}
	switch {
	case id != "" && id == b.auto.ID:
		return done, errDone
	case maps.Equal(shares, b.auto.Shares):
		b.auto.ID = id
		return done, errNoChange
	}
	next := autoChain{id, shares}
	text, err := json.Marshal(next)
	if err == nil {
		err = durable.Replace(b.file, text, 0o640)
	}
	if err != nil {
		return done, err
	}
	b.auto = next
	heard := time.Now()
	for user := range b.users {
		if is, ok := b.last(user); !ok || is.Value.Chain != userchain.Auto {
			continue
		}
		if moved, sessions := b.settle(user, heard); moved {
			done.Users++
			done.Connections += sessions
		}
	}
	return done, nil
}

// readAuto takes up what was commanded last.
func (b *switchboard) readAuto() error {
	b.auto.Shares = userchain.Shares{b.srv.cfg.Chains[b.srv.first].Name: 1}
	durable.Sweep(b.file)
	text, err := os.ReadFile(b.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var last autoChain
	err = json.Unmarshal(text, &last)
	if err == nil {
		err = b.takeAuto(last)
	}
	if err != nil {
		b.log.Warn().Err(err).Str("file", b.file).Msg("users in auto mode begin with the default chain")
	}
	return nil
}

// takeAuto takes up what was commanded, unless it makes no sense here.
func (b *switchboard) takeAuto(last autoChain) error {
	if err := last.Shares.Check(); err != nil {
		return err
	}
	for chain, part := range last.Shares {
		if part > 0 && b.srv.cfg.chainIndex(chain) < 0 {
			return fmt.Errorf("chain %s is not configured any more", chain)
		}
	}
	b.auto = last
	return nil
}

// pass is called when another process begins to take over, and reads the files. undo is for when it does not.
func (b *switchboard) pass() (undo func()) {
	set := func(passing map[string]string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.passing = passing
	}
	set(make(map[string]string))
	keep := b.nodes.LeaveFile()
	return func() {
		set(nil)
		keep()
	}
}

// board is what a switchboard knows, on its way to another process, besides what is in files and of sessions.
type board struct {
	auto  autoChain
	mined map[string]string // by user, since the files were written
}

// maxPassing is how many users may have been moved while another process began.
const maxPassing = 1 << 22

func (v *board) code(c *upgrade.Codec) {
	text(c, &v.auto.ID)
	upgrade.Map(c, (*map[string]float64)(&v.auto.Shares), maxChains, text, func(c *upgrade.Codec, part *float64) { c.Float(part) })
	upgrade.Map(c, &v.mined, maxPassing, text, text)
}

// carry returns what another process needs to go on.
func (b *switchboard) carry() *board {
	b.mu.Lock()
	defer b.mu.Unlock()
	return &board{b.auto, maps.Clone(b.passing)}
}

// adopt goes on with what another process knew.
func (b *switchboard) adopt(v *board) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for user, chain := range v.mined {
		b.nodes.Mines(user, chain)
	}
	return b.takeAuto(v.auto)
}
