package operator

import (
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"btcpool/internal/bitcoin"
)

// affected says how many something was done to.
type affected struct {
	Sessions int `json:"sessions"`
	Miners   int `json:"miners"` // of agents among them, with a difficulty of their own
}

// act does something to all sessions that are meant. A session that is named must be there.
func (a *API) act(r *http.Request, f filter, do func(Session)) (n int, err error) {
	err = a.srv.Visit(r.Context(), func(s Session) {
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

// kick ends sessions, of those who are told to come back somewhere when that is given.
func (a *API) kick(r *http.Request) (any, error) {
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
	to, err := ParsePlace(order.ReconnectTo)
	if err != nil {
		return nil, badRequest("reconnect_to = %.60q: %v", order.ReconnectTo, err)
	}
	word := &to
	if !order.Reconnect && order.ReconnectTo == "" {
		word = nil
	}
	n, err := a.act(r, f, func(s Session) { s.Kick(word) })
	return affected{Sessions: n}, err
}

// setDifficulty sets difficulties. Those who are not agents learn it at once, an agent's miners with their next job;
// the jobs before keep theirs.
func (a *API) setDifficulty(r *http.Request) (any, error) {
	order, err := body[struct {
		selection
		Miner      *uint16 `json:"miner"` // of one agent: nil: all that are meant
		Difficulty float64 `json:"difficulty"`
		Fixed      bool    `json:"fixed"`
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
	n, miners := 0, 0
	_, err = a.act(r, f, func(s Session) {
		ok, meant := s.SetDifficulty(Order{
			Difficulty: bitcoin.DifficultyAtLeast(order.Difficulty),
			Fixed:      order.Fixed,
			Number:     order.Miner,
			Meant:      f.names,
		})
		if ok {
			n++
			miners += meant
		}
	})
	if err == nil && order.Miner != nil && miners == 0 {
		return nil, notFound("the session has no such miner")
	}
	return affected{n, miners}, err
}

// message has miners show a text.
func (a *API) message(r *http.Request) (any, error) {
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
	n := 0
	if _, err := a.act(r, f, func(s Session) {
		if s.Message(order.Text) {
			n++
		}
	}); err != nil {
		return nil, err
	}
	return affected{Sessions: n}, nil
}
