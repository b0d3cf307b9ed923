package switcher

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"btcpool/internal/chainwatch"
	"btcpool/internal/stratum"
	"btcpool/internal/userchain"
)

// What a miner asks. Until it has logged in all is answered here; then the rest goes to its server.

const (
	// agentPrefix begins the user agents of farm proxies.
	agentPrefix = "btccom-agent/"
	// watcherAgent is that of programs that only watch a pool's jobs.
	watcherAgent = "__PoolWatcher__"
	// farmExtraNonce2 is the size that farm proxies divide among their miners.
	farmExtraNonce2 = 8
)

func (s *session) request(req stratum.Request) {
	switch string(req.Method) {
	case "mining.subscribe":
		s.subscribe(req)
		return
	case "mining.extranonce.subscribe":
		s.takeExtraNonces()
		s.loop.out = stratum.AppendTrue(s.loop.out, req.ID)
		return
	case "mining.ping":
		s.loop.out = stratum.AppendResult(s.loop.out, req.ID, `"pong"`)
		return
	}
	if s.Phase == mining {
		s.forward(req)
		return
	}
	switch string(req.Method) {
	case "mining.configure":
		s.configure(req)
	case "mining.authorize":
		s.authorize(req)
	case "mining.suggest_difficulty", "mining.suggest_target":
		s.Suggestion = suggestion{string(req.Method), string(req.Params)}
		s.loop.out = stratum.AppendTrue(s.loop.out, req.ID)
	case "agent.get_capabilities":
		s.loop.out = stratum.AppendCapabilities(s.loop.out, req.ID, nil, 0)
	case "mining.submit":
		s.refuse(req.ID, refuseLogin)
	default:
		s.refuse(req.ID, refuseMethod)
	}
}

// subscribe gives the miner an extranonce1 that it keeps, if its servers let it.
func (s *session) subscribe(req stratum.Request) {
	if s.Phase != connected {
		s.refuse(req.ID, refuseSubscribed)
		return
	}
	if s.full {
		s.endRefused(req.ID, refuseFull)
		return
	}
	software, _, _ := stratum.ParseSubscribe(req.Params)
	s.Agent = strings.Clone(software[:min(len(software), maxAgent)])
	lower := strings.ToLower(s.Agent)
	s.Farm = strings.HasPrefix(lower, agentPrefix)
	s.Patient = s.Farm || strings.HasPrefix(s.Agent, watcherAgent)
	s.ExtraNonce2Size = s.srv.cfg.ExtraNonce2Size
	if s.Farm {
		s.ExtraNonce2Size = farmExtraNonce2
	}
	s.ExtraNonce1 = hex.AppendEncode(nil, []byte{byte(s.ID >> 24), byte(s.ID >> 16), byte(s.ID >> 8), byte(s.ID)})
	s.setPhase(subscribed)
	s.loop.out = stratum.AppendSubscribed(s.loop.out, req.ID, s.ID, s.ExtraNonce2Size)
}

// takeExtraNonces notes that the miner can be told of another extranonce.
func (s *session) takeExtraNonces() { s.TakesExtraNonce = true }

// configure promises the version bits that all known servers let miners roll. A server that does not is made up for
// later, by mining.set_version_mask.
func (s *session) configure(req stratum.Request) {
	wishes, err := stratum.ParseConfigure(req.Params)
	if err != nil {
		s.refuse(req.ID, refuseParams)
		return
	}
	mask := wishes.Mask(s.srv.promise())
	if wishes.Asks(stratum.VersionRolling) {
		s.Rolls, s.Wanted, s.Told = true, wishes.VersionMask, mask
	}
	if wishes.Asks(stratum.SubscribeExtranonce) {
		s.takeExtraNonces()
	}
	s.Configure = bytes.Clone(req.Params)
	s.loop.out = stratum.AppendConfigured(s.loop.out, req.ID, wishes, mask)
}

// authorize finds out whom the miner is of, and which chain that user mines.
func (s *session) authorize(req stratum.Request) {
	if s.Phase != subscribed {
		s.endRefused(req.ID, refuseNotSubscribed)
		return
	}
	var params []json.RawMessage
	if err := json.Unmarshal(req.Params, &params); err != nil || len(params) == 0 {
		s.endRefused(req.ID, refuseTooFew)
		return
	}
	full, password, err := stratum.ParseAuthorize(req.Params)
	if err != nil {
		s.endRefused(req.ID, refuseNotText)
		return
	}
	own, why := splitName(full, s.srv.cfg.Users.CaseInsensitive)
	if why != nil {
		s.endRefused(req.ID, *why)
		return
	}
	s.Name, s.Typed, s.Password = own, full, password
	s.LoginID = bytes.Clone(req.ID)
	s.setPhase(finding)
	s.spell()
}

// spell finds out how the user's name is written.
func (s *session) spell() {
	if s.srv.spellings == nil {
		s.find()
		return
	}
	typed := s.Name.user
	s.ask(func(ctx context.Context) func() {
		spelt := s.srv.spellings.of(ctx, typed)
		return func() {
			s.Name.user = spelt
			s.find()
		}
	})
}

// find asks for the chain of the miner's user.
func (s *session) find() {
	user := s.Name.user
	s.used = true
	s.loop.keepUser(s)
	if answer, ok := s.srv.users.Use(user); ok {
		s.found(answer, nil, true)
		return
	}
	s.ask(func(ctx context.Context) func() {
		answer, err := s.srv.users.Ask(ctx, user)
		return func() { s.found(answer, err, true) }
	})
}

// found goes on with what a user's node says. Without a node the user is registered, if it may be.
func (s *session) found(answer chainwatch.Answer, err error, register bool) {
	switch {
	case s.Phase != finding:
	case err != nil:
		s.endLogin(refusalOf(err))
	case !answer.Known && s.srv.registrations != nil && register:
		s.ask(func(ctx context.Context) func() {
			var answer chainwatch.Answer
			err := s.srv.registrations.Wait(ctx, s.Name.user, userchain.Request{SessionID: s.ID, Worker: s.Name.String()})
			if err == nil {
				answer, err = s.srv.users.Ask(ctx, s.Name.user)
			}
			return func() { s.found(answer, err, false) }
		})
	case !answer.Known && (s.srv.registrations != nil || s.srv.cfg.DefaultChain == ""):
		s.srv.guard.LoginRefused(s.IP, s.loop.now)
		s.endLogin(refuseUnknown)
	default:
		if latest, ok := s.srv.users.Last(s.Name.user); ok { // a change that came meanwhile was not followed
			answer = latest
		}
		to := s.srv.target(s.Name.user, answer)
		if to == nil {
			s.endLogin(refuseNoChain)
			return
		}
		s.to, s.Chain = to, to.Name
		s.setPhase(joining)
		s.lost = s.loop.now
		s.wake()
		s.join()
	}
}

// endRefused refuses a request and ends the session.
func (s *session) endRefused(id []byte, why refusal) {
	s.refuse(id, why)
	s.refused()
	s.finish(errRefused)
}

// endLogin refuses the login.
func (s *session) endLogin(why refusal) {
	s.srv.metrics.logins.WithLabelValues("refused").Inc()
	s.endRefused(s.LoginID, why)
}

// forward passes a request on to the server that it is for.
func (s *session) forward(req stratum.Request) {
	switch string(req.Method) {
	case "mining.submit":
		s.submit(req)
		return
	case "mining.authorize":
		s.authorizeMore(req)
		return
	case "mining.suggest_difficulty", "mining.suggest_target":
		s.Suggestion = suggestion{string(req.Method), string(req.Params)}
	}
	u := s.now
	if u == nil {
		s.refuse(req.ID, refuseLost)
		return
	}
	kind := askedElse
	if string(req.Method) == "mining.configure" {
		wishes, err := stratum.ParseConfigure(req.Params)
		if err != nil {
			s.refuse(req.ID, refuseParams)
			return
		}
		kind = askedConfigure
		s.Configure = bytes.Clone(req.Params)
		if wishes.Asks(stratum.VersionRolling) {
			s.Rolls, s.Wanted = true, wishes.VersionMask
		}
		if wishes.Asks(stratum.SubscribeExtranonce) {
			s.takeExtraNonces()
		}
	}
	number, ok := u.question(question{id: bytes.Clone(req.ID), kind: kind})
	if !ok {
		s.refuse(req.ID, refuseBusy)
		return
	}
	s.loop.up = stratum.AppendRequest(s.loop.up[:0], number, req.Method, req.Params)
	u.send(s.loop.up)
}

// authorizeMore logs in a further worker, at each server that the miner comes to.
func (s *session) authorizeMore(req stratum.Request) {
	full, password, err := stratum.ParseAuthorize(req.Params)
	if err != nil || len(full)+len(password) > maxName { // they are kept
		s.refuse(req.ID, refuseParams)
		return
	}
	u := s.now
	if u == nil {
		s.refuse(req.ID, refuseLost)
		return
	}
	number, ok := u.question(question{id: bytes.Clone(req.ID), kind: askedAuthorize, worker: worker{full, password}})
	if !ok {
		s.refuse(req.ID, refuseBusy)
		return
	}
	s.loop.up = stratum.AppendAuthorize(s.loop.up[:0], number, u.named(full), password)
	u.send(s.loop.up)
}

// remember has later servers hear of a further worker.
func (s *session) remember(w worker) {
	if len(s.Others) < maxOthers && !slices.Contains(s.Others, w) {
		s.Others = append(s.Others, w)
	}
}

// submit passes a share on to the server whose job it is for.
func (s *session) submit(req stratum.Request) {
	u := s.now
	if !s.Farm {
		mark, ok := stratum.MarkOf(req.Params)
		if u = s.marked(mark); !ok || u == nil {
			s.srv.metrics.shares.WithLabelValues(s.Chain, "stale").Inc()
			s.refuse(req.ID, refuseStale)
			return
		}
	}
	if u == nil {
		s.refuse(req.ID, refuseLost)
		return
	}
	number, ok := u.question(question{id: bytes.Clone(req.ID), kind: askedSubmit})
	if !ok {
		s.refuse(req.ID, refuseBusy)
		return
	}
	var err error
	if s.Farm {
		s.loop.up = stratum.AppendRequest(s.loop.up[:0], number, req.Method, req.Params)
	} else {
		s.loop.up, err = u.ext.AppendSubmit(s.loop.up[:0], number, req.Params, u.worker(req.Params))
	}
	if err != nil {
		delete(u.questions, number)
		s.refuse(req.ID, refuseParams)
		return
	}
	u.send(s.loop.up)
}

// marked returns the server whose jobs have a mark, nil if it is none of the session's.
func (s *session) marked(mark byte) *upstream {
	if s.now != nil && s.now.ext.Mark == mark {
		return s.now
	}
	for _, u := range s.past {
		if u.ext.Mark == mark {
			return u
		}
	}
	return nil
}

// nextMark returns a mark that none of the session's servers has.
func (s *session) nextMark() byte {
	const marks = "0123456789abcdef"
	for {
		s.Marks++
		mark := marks[int(s.Marks)%len(marks)]
		if s.marked(mark) == nil && (s.next == nil || s.next.ext.Mark != mark) {
			return mark
		}
	}
}
