package sserver

import (
	"errors"
	"slices"
	"strings"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/share"
	v1 "btcpool/internal/stratum/v1"
	"btcpool/internal/userchain"
	"btcpool/internal/users"
)

// maxWorkers is how many may be authorized on one connection: far more than a farm proxy has.
const maxWorkers = 5000

// maxLogin is how long a login may be that is kept to find its worker again, in bytes; of longer ones shares take
// longer.
const maxLogin = 128

// subscribe begins a session with a miner that runs a software, which may want to go on with the session it had before.
func (s *session) subscribe(software string, before uint32, resume bool) {
	s.Agent = software
	s.Grand = s.srv.cfg.GrandPool && software == grandAgent
	if isAgent(software) {
		s.Farm = &farm{Miners: make(map[uint16]*farmMiner)}
	}
	if resume {
		s.resume(before)
	}
	long := s.srv.longAgents
	s.Patient = s.Farm != nil || s.Grand || long != nil && long.MatchString(software)
	if nice := s.chain().cfg.NiceHash; !s.OwnFloor && (nice.Forced || isNiceHash(software)) {
		s.limit(bitcoin.DifficultyAtLeast(nice.MinDifficulty))
	}
	s.setPhase(subscribed)
}

// nonceBytes is the size of the session's extranonce2.
func (s *session) nonceBytes() uint8 {
	switch {
	case s.Grand:
		return job.GrandExtranonce2Size
	case s.Farm != nil:
		return job.Extranonce2Size
	}
	return s.port.nonceBytes
}

// grandAgent is what a client says it is that serves a pool of its own.
const grandAgent = "__PoolGrandPoolWatcher__"

// isNiceHash recognizes the miners of its buyers.
func isNiceHash(userAgent string) bool {
	return strings.HasPrefix(strings.ToLower(userAgent), "nicehash/")
}

// logIn lets shares be credited to the worker called name. When its user is not known here it is asked for, and the
// protocol hears of the outcome: done is false then, and the status means nothing.
func (s *session) logIn(name string, wishes v1.Wishes) (status share.Status, done bool) {
	user, own, start, hasStart := splitLogin(name, s.list())
	if hasStart && !wishes.HasStart {
		wishes.Start, wishes.HasStart = start, true
	}
	_, known := s.Names[fullName(user, own)]
	switch {
	case known:
		return share.StatusAccept, true
	case s.Phase == connected:
		return share.StatusNotSubscribed, true
	case user == "":
		return s.refuse("name", share.StatusInvalidUsername), true
	case len(s.Workers) == maxWorkers:
		s.srv.metrics.loginsRefused.WithLabelValues("limit").Inc() // ours: nothing is wrong with it
		return share.StatusUnauthorized, true
	}
	w := worker{Login: name, UserName: user, Name: own, ID: s.srv.workerID(user, own)}
	if s.srv.board != nil && len(s.Workers) == 0 {
		return s.logInByNode(w, wishes)
	}
	if id, ok := s.userID(user); ok {
		w.UserID = id
		return s.admit(w, wishes), true
	}
	s.ask(&question{Worker: w, Wishes: wishes, Chain: s.Chain})
	return 0, false
}

// errMoved is for a login that came while the session was moved to another chain.
var errMoved = errors.New("its session is on another chain now")

// userID returns the id of a user on the session's chain, if it is known without asking.
func (s *session) userID(user string) (int32, bool) {
	if s.srv.board != nil {
		return s.srv.board.knownID(s.Chain, user)
	}
	return s.list().Cached(user)
}

// logInByNode is logIn for the session's first worker, which is to be where its user's node says.
func (s *session) logInByNode(w worker, wishes v1.Wishes) (status share.Status, done bool) {
	if userchain.CheckUser(w.UserName) != nil { // it would be another's node
		return s.refuse("name", share.StatusInvalidUsername), true
	}
	s.ask(&question{Worker: w, Wishes: wishes, ByNode: true})
	return 0, false
}

// found is logIn once the user's id is known, or the reason why it is not.
func (s *session) found(w worker, wishes v1.Wishes, err error) share.Status {
	switch {
	case errors.Is(err, users.ErrUnknown):
		return s.refuse("unknown", share.StatusInvalidUsername)
	case err != nil:
		s.srv.loginLog.Warn().Err(err).Str("user", w.UserName).Msg("login not possible")
		return s.refuse("unavailable", share.StatusInternalError)
	}
	return s.admit(w, wishes)
}

// admit lets shares be credited to w.
func (s *session) admit(w worker, wishes v1.Wishes) share.Status {
	if s.Phase != authorized { // the difficulty is the connection's
		s.begin(wishes)
		s.setPhase(authorized)
		s.chain().miners.Add(1)
		s.trust()
	}
	if s.Names == nil {
		s.Names = make(map[string]int)
	}
	if len(w.Login) > maxLogin {
		w.Login = ""
	}
	if w.Login != "" {
		s.Names[w.Login] = len(s.Workers)
	}
	s.Names[w.fullName()] = len(s.Workers)
	s.Workers = append(s.Workers, w)
	s.event(share.MinerConnect, w, s.Agent, "new_conn")
	s.srv.log.Debug().Str("session", s.sessionID()).Str("worker", w.fullName()).Str("agent", s.Agent).
		Stringer("ip", s.IP).Msg("miner authorized")
	return share.StatusAccept
}

// begin sets the difficulty that a miner begins with.
func (s *session) begin(wishes v1.Wishes) {
	if wishes.HasFloor {
		s.limit(wishes.Floor)
	}
	start := s.Miner.Difficulty.Difficulty
	if wishes.HasStart {
		start = wishes.Start
	}
	s.suggest(start) // the time before the login does not count
	if s.Farm != nil {
		s.Miner.Difficulty.Difficulty = max(s.Miner.Difficulty.Difficulty, s.leastDifficulty())
		s.Miner.Fixed = true
	}
}

// suggest starts the search for the miner's difficulty anew at d. The miner learns it with the next update.
func (s *session) suggest(d bitcoin.Difficulty) {
	if m := &s.Miner; !m.Fixed {
		m.Difficulty = s.port.vardiff.Start(d, m.Difficulty.Floor, s.loop.now)
	}
}

// limit keeps the miner's difficulty from falling below floor.
func (s *session) limit(floor bitcoin.Difficulty) {
	if m := &s.Miner; !m.Fixed {
		m.Difficulty = s.port.vardiff.Start(m.Difficulty.Difficulty, floor, s.loop.now)
	}
}

// wish begins with the difficulty that the miner suggests, unless it only says so
// again: some do for as long as they hear nothing, and would never be lowered.
func (s *session) wish(d bitcoin.Difficulty) {
	if s.Wished && s.Wish == d {
		return
	}
	s.Wished, s.Wish = true, d
	s.suggest(d)
}

// credited returns the worker that a share is for when it names one. A stranger is of an account that has not logged in
// on this connection: the worker is then whom it would be for if it had named nobody.
func (s *session) credited(name []byte) (w *worker, stranger bool) {
	first := &s.Workers[0]
	if len(name) > 0 && string(name) == first.Login {
		return first, false
	}
	if i, ok := s.Names[string(name)]; ok {
		return &s.Workers[i], false
	}
	return s.implied(string(name))
}

// implied is credited for a worker that did not log in by that name. If its account did, the share logs it in.
func (s *session) implied(name string) (w *worker, stranger bool) {
	user, own, _, _ := splitLogin(name, s.list())
	if i, ok := s.Names[fullName(user, own)]; ok {
		return &s.Workers[i], false
	}
	if name == "" {
		user = s.Workers[0].UserName
		if slices.ContainsFunc(s.Workers, func(w worker) bool { return w.UserName != user }) {
			user = ""
		}
	}
	of := slices.IndexFunc(s.Workers, func(w worker) bool { return w.UserName == user })
	switch {
	case of < 0:
		s.srv.metrics.misnamed.WithLabelValues("nobody").Inc()
		return &s.Workers[0], true
	case name == "" || len(s.Workers) == maxWorkers:
		s.srv.metrics.misnamed.WithLabelValues("account").Inc()
		return &s.Workers[of], false
	}
	s.srv.metrics.misnamed.WithLabelValues("worker").Inc()
	s.admit(worker{Login: name, UserName: user, UserID: s.Workers[of].UserID, Name: own, ID: s.srv.workerID(user, own)}, v1.Wishes{})
	return &s.Workers[len(s.Workers)-1], false
}
