package sserver

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"btcpool/internal/agentwire"
	"btcpool/internal/bitcoin"
)

const (
	pageSize    = 100
	maxPageSize = 1000
	// maxMessage is what a miner's small display may be expected to take, in bytes.
	maxMessage = 500
)

var errKicked = errors.New("sent away by the operator")

// selection says which sessions are meant: those that all given fields are true
// of. Names are whole, upper and lower case as they are stored.
type selection struct {
	Session string `json:"session"`
	User    string `json:"user"`
	Worker  string `json:"worker"`  // without the user's name; of an agent's miners too
	Address string `json:"address"` // or a network
	Agent   string `json:"agent"`   // part of it, upper and lower case the same
	All     bool   `json:"all"`     // none of the above
}

// filter is a selection that is well formed.
type filter struct {
	one          bool
	id           uint32
	user, worker string
	network      netip.Prefix // not valid: any
	agent        string       // lower case
}

func (s selection) filter() (f filter, err error) {
	f = filter{user: s.User, worker: s.Worker, agent: strings.ToLower(s.Agent)}
	if s.Session != "" {
		f.one = true
		if f.id, err = parseSessionID(s.Session); err != nil {
			return f, err
		}
	}
	if s.Address != "" {
		if f.network, err = parseNetwork(s.Address); err != nil {
			return f, badRequest("address = %.60q: must be an address or a network", s.Address)
		}
	}
	return f, nil
}

// target is the filter of those whom something is done to: nobody is to hit all
// by forgetting a field.
func (s selection) target() (filter, error) {
	if none := (s == selection{All: s.All}); none != s.All {
		return filter{}, badRequest(`name at least one of session, user, worker, address and agent, or only "all": true`)
	}
	return s.filter()
}

func parseSessionID(text string) (uint32, error) {
	id, err := strconv.ParseUint(text, 16, 32)
	if err != nil || len(text) != 8 {
		return 0, badRequest("session %.20q: must be 8 hex digits", text)
	}
	return uint32(id), nil
}

// parseNetwork reads an address too, as a network of one.
func parseNetwork(text string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(text); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err == nil && p.Addr().Is4In6() {
		err = errors.New("is IPv4 written as IPv6")
	}
	return p.Masked(), err
}

// meets is called by the session's loop.
func (f *filter) meets(s *session) bool {
	switch {
	case !s.admitted, f.one && s.ID != f.id:
		return false
	case f.network.IsValid() && !f.network.Contains(s.IP):
		return false
	case f.agent != "" && !strings.Contains(strings.ToLower(s.Agent), f.agent):
		return false
	case f.user == "" && f.worker == "":
		return true
	}
	if slices.ContainsFunc(s.Workers, f.names) {
		return true
	}
	if s.Farm != nil {
		for _, m := range s.Farm.Miners {
			if f.names(m.worker) {
				return true
			}
		}
	}
	return false
}

func (f *filter) names(w worker) bool {
	return (f.user == "" || w.UserName == f.user) && (f.worker == "" || w.Name == f.worker)
}

// sessionView is a session as the operator sees it.
type sessionView struct {
	ID          string      `json:"id"`
	State       string      `json:"state"`
	Address     string      `json:"address"`
	Listener    string      `json:"listener"`
	Agent       string      `json:"agent"`
	Workers     []string    `json:"workers"`
	Difficulty  json.Number `json:"difficulty"`
	Fixed       bool        `json:"fixed"`
	Accepted    uint32      `json:"accepted"`
	Rejected    uint32      `json:"rejected"`
	ConnectedAt time.Time   `json:"connected_at"`
	LastShareAt *time.Time  `json:"last_share_at"`
	Miners      *int        `json:"miners"` // behind an agent; nil: it is none
}

type minerView struct {
	Number      agentwire.Session `json:"number"`
	Worker      string            `json:"worker"`
	Agent       string            `json:"agent"`
	Difficulty  json.Number       `json:"difficulty"`
	Fixed       bool              `json:"fixed"`
	Accepted    uint32            `json:"accepted"`
	Rejected    uint32            `json:"rejected"`
	LastShareAt *time.Time        `json:"last_share_at"`
}

func (s *session) view() sessionView {
	v := sessionView{
		ID:          s.sessionID(),
		State:       s.Phase.String(),
		Address:     s.IP.String(),
		Listener:    s.port.Addr().String(),
		Agent:       s.Agent,
		Workers:     []string{},
		Difficulty:  number(s.Miner.Difficulty.Difficulty),
		Fixed:       s.Miner.Fixed,
		Accepted:    s.Tally.Accepted,
		Rejected:    s.Tally.Rejected,
		ConnectedAt: s.Since.UTC().Truncate(time.Second),
		LastShareAt: s.Tally.last(),
	}
	for _, w := range s.Workers {
		v.Workers = append(v.Workers, w.fullName())
	}
	if s.Farm != nil {
		v.Miners = new(len(s.Farm.Miners))
	}
	return v
}

func number(d bitcoin.Difficulty) json.Number { return json.Number(d.AppendTo(nil)) }

// last returns nil when no share was accepted.
func (t tally) last() *time.Time {
	if t.Last == 0 {
		return nil
	}
	return new(time.Unix(t.Last, 0).UTC())
}

// getSessions lists sessions by their ids, a page at a time.
func (a *adminAPI) getSessions(r *http.Request) (any, error) {
	q := parseQuery(r)
	f, err := selection{User: q.text("user"), Worker: q.text("worker"), Address: q.text("address"), Agent: q.text("agent")}.filter()
	if err != nil {
		return nil, err
	}
	after, behind := uint32(0), q.values.Has("after")
	if behind {
		if after, err = parseSessionID(q.text("after")); err != nil {
			return nil, err
		}
	}
	limit := q.integer("limit", pageSize, 1, maxPageSize)
	if err := q.done(); err != nil {
		return nil, err
	}

	type found struct {
		id      uint32
		session *session
	}
	var matches []found
	total := 0
	if err := a.srv.visit(r.Context(), a.srv.allSessions(r.Context()), func(s *session) {
		if f.meets(s) {
			total++
			if !behind || s.ID > after {
				matches = append(matches, found{s.ID, s})
			}
		}
	}); err != nil {
		return nil, err
	}
	slices.SortFunc(matches, func(a, b found) int { return cmp.Compare(a.id, b.id) })
	var page []*session
	for _, m := range matches[:min(limit, len(matches))] {
		page = append(page, m.session)
	}
	answer := struct {
		Total    int           `json:"total"` // that match, on all pages
		Next     *string       `json:"next"`  // after, for the next page
		Sessions []sessionView `json:"sessions"`
	}{Total: total, Sessions: []sessionView{}}
	if len(matches) > limit {
		answer.Next = new(fmt.Sprintf("%08x", matches[limit-1].id))
	}
	err = a.srv.visit(r.Context(), page, func(s *session) { answer.Sessions = append(answer.Sessions, s.view()) })
	slices.SortFunc(answer.Sessions, func(a, b sessionView) int { return strings.Compare(a.ID, b.ID) })
	return answer, err
}

// one has look look at the session that the path names.
func (a *adminAPI) one(r *http.Request, look func(*session)) error {
	id, err := parseSessionID(r.PathValue("id"))
	if err != nil {
		return err
	}
	f, known := filter{one: true, id: id}, false
	err = a.srv.visit(r.Context(), a.srv.allSessions(r.Context()), func(s *session) {
		if f.meets(s) {
			known = true
			look(s)
		}
	})
	if err == nil && !known {
		return errNoSuchSession
	}
	return err
}

func (a *adminAPI) getSession(r *http.Request) (any, error) {
	if err := parseQuery(r).done(); err != nil {
		return nil, err
	}
	type userView struct {
		Name string `json:"name"`
		ID   int32  `json:"id"`
	}
	var answer struct {
		sessionView
		Users             []userView  `json:"users"`
		MinimumDifficulty json.Number `json:"minimum_difficulty"`
		VersionMask       string      `json:"version_mask"`
		Jobs              int         `json:"jobs"` // that it may send shares for
		UnsentBytes       int         `json:"unsent_bytes"`
	}
	answer.Users = []userView{}
	return &answer, a.one(r, func(s *session) {
		answer.sessionView = s.view()
		for _, w := range s.Workers {
			if u := (userView{w.UserName, w.UserID}); !slices.Contains(answer.Users, u) {
				answer.Users = append(answer.Users, u)
			}
		}
		answer.MinimumDifficulty = number(s.Miner.Difficulty.Floor)
		answer.VersionMask = fmt.Sprintf("%08x", s.VersionMask)
		answer.Jobs = len(s.Jobs)
		answer.UnsentBytes = s.outbox.Len()
	})
}

// getMiners lists the miners of an agent by their numbers, a page at a time.
func (a *adminAPI) getMiners(r *http.Request) (any, error) {
	q := parseQuery(r)
	after := q.integer("after", -1, 0, math.MaxUint16)
	limit := q.integer("limit", pageSize, 1, maxPageSize)
	if err := q.done(); err != nil {
		return nil, err
	}
	answer := struct {
		Total  int         `json:"total"`
		Next   *int        `json:"next"`
		Miners []minerView `json:"miners"`
	}{Miners: []minerView{}}
	isAgent := false
	err := a.one(r, func(s *session) {
		if s.Farm == nil {
			return
		}
		isAgent = true
		answer.Total = len(s.Farm.Miners)
		var numbers []agentwire.Session
		for n := range s.Farm.Miners {
			if int(n) > after {
				numbers = append(numbers, n)
			}
		}
		slices.Sort(numbers)
		if len(numbers) > limit {
			numbers = numbers[:limit]
			answer.Next = new(int(numbers[limit-1]))
		}
		for _, n := range numbers {
			m := s.Farm.Miners[n]
			answer.Miners = append(answer.Miners, minerView{
				Number:      n,
				Worker:      m.worker.fullName(),
				Agent:       m.Agent,
				Difficulty:  number(m.Difficulty.Difficulty),
				Fixed:       m.Fixed,
				Accepted:    m.Tally.Accepted,
				Rejected:    m.Tally.Rejected,
				LastShareAt: m.Tally.last(),
			})
		}
	})
	if err == nil && !isAgent {
		return nil, &adminError{http.StatusNotFound, "not_found", "the session is no agent's"}
	}
	return &answer, err
}

// affected says how many something was done to.
type affected struct {
	Sessions int `json:"sessions"`
	Miners   int `json:"miners"` // of agents among them, with a difficulty of their own
}

// act does something to all sessions that are meant. A session that is named
// must be there.
func (a *adminAPI) act(r *http.Request, f filter, do func(*session)) (n int, err error) {
	err = a.srv.visit(r.Context(), a.srv.allSessions(r.Context()), func(s *session) {
		if f.meets(s) {
			n++
			do(s)
		}
	})
	if err == nil && n == 0 && f.one {
		return 0, errNoSuchSession
	}
	return n, err
}

// kick ends sessions, of those who are told to come back somewhere when that is
// given.
func (a *adminAPI) kick(r *http.Request) (any, error) {
	order, err := body[struct {
		selection
		Reconnect   bool   `json:"reconnect"`
		ReconnectTo string `json:"reconnect_to"`
	}](r)
	if err != nil {
		return nil, err
	}
	f, err := order.target()
	if err != nil {
		return nil, err
	}
	message, err := reconnect(order.ReconnectTo)
	if err != nil {
		return nil, badRequest("reconnect_to = %.60q: %v", order.ReconnectTo, err)
	}
	if !order.Reconnect && order.ReconnectTo == "" {
		message = nil
	}
	n, err := a.act(r, f, func(s *session) {
		s.send(message)
		s.discard = maxDiscard
		s.finish(errKicked)
	})
	return affected{Sessions: n}, err
}

// setDifficulty sets difficulties. Those who are not agents learn it at once,
// an agent's miners with their next job; the jobs before keep theirs.
func (a *adminAPI) setDifficulty(r *http.Request) (any, error) {
	order, err := body[struct {
		selection
		Miner      *agentwire.Session `json:"miner"` // of one agent: nil: all that are meant
		Difficulty float64            `json:"difficulty"`
		Fixed      bool               `json:"fixed"`
	}](r)
	if err != nil {
		return nil, err
	}
	f, err := order.target()
	switch {
	case err != nil:
		return nil, err
	case !(order.Difficulty > 0 && order.Difficulty <= bitcoin.MaxDifficulty.Float()):
		return nil, badRequest("difficulty = %v: must be above 0 and at most 2^%d", order.Difficulty, bitcoin.MaxDifficulty)
	case order.Miner != nil && !f.one:
		return nil, badRequest("miner: is one of an agent, whose session must be named")
	}
	d := bitcoin.DifficultyAtLeast(order.Difficulty)
	n, miners := 0, 0
	_, err = a.act(r, f, func(s *session) {
		if s.Phase != authorized { // the login would undo it
			return
		}
		n++
		set := func(m *miner) {
			m.Difficulty = s.port.vardiff.Start(d, m.Difficulty.Floor, s.loop.now)
			m.Fixed = order.Fixed
		}
		if s.Farm == nil {
			if order.Miner == nil {
				set(&s.Miner)
				s.refresh()
			}
			return
		}
		for number, m := range s.Farm.Miners {
			if f.names(m.worker) && (order.Miner == nil || *order.Miner == number) {
				set(&m.miner)
				miners++
			}
		}
	})
	if err == nil && order.Miner != nil && miners == 0 {
		return nil, &adminError{http.StatusNotFound, "not_found", "the session has no such miner"}
	}
	return affected{n, miners}, err
}

// message has miners show a text.
func (a *adminAPI) message(r *http.Request) (any, error) {
	order, err := body[struct {
		selection
		Text string `json:"text"`
	}](r)
	if err != nil {
		return nil, err
	}
	f, err := order.target()
	if err != nil {
		return nil, err
	}
	if t := order.Text; t == "" || len(t) > maxMessage || !utf8.ValidString(t) || strings.ContainsFunc(t, unicode.IsControl) {
		return nil, badRequest("text: must be 1 to %d bytes in one line", maxMessage)
	}
	text, err := json.Marshal(order.Text)
	if err != nil {
		return nil, err
	}
	line := fmt.Appendf(nil, `{"id":null,"method":"client.show_message","params":[%s]}`+"\n", text)
	n := 0
	if _, err := a.act(r, f, func(s *session) {
		if s.Phase == authorized {
			n++
			s.send(line)
		}
	}); err != nil {
		return nil, err
	}
	return affected{Sessions: n}, nil
}
