package switchapi

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"btcpool/internal/httpapi"
	"btcpool/internal/userchain"
)

// States of what is asked for.
const (
	stateWritten  = "written"  // ZooKeeper has it
	stateAccepted = "accepted" // it is on our disk, and ZooKeeper will have it
	stateRefused  = "refused"
)

// result is what became of one user's change.
type result struct {
	PUName  string  `json:"puname"`
	Coin    string  `json:"coin"`    // "" of a change of sub-pool
	SubPool *string `json:"subpool"` // null of a switch
	ErrNo   int     `json:"err_no"`
	ErrMsg  string  `json:"err_msg"`
	State   string  `json:"state"`
	Warning string  `json:"warning"`
}

// results answer a request to change users: with the first error, and what became of each.
type results struct {
	answer
	Results []result `json:"results"`
}

// audited is a line of the audit log.
type audited struct {
	Time   time.Time `json:"time"`
	Client string    `json:"client"`
	From   string    `json:"from"`
	Path   string    `json:"path"`
	result
}

// wish is what a client asks for one user.
type wish struct {
	name, coin string
	subPool    *string
	puid       int32
}

// changeOf judges a wish.
func (s *Service) changeOf(w wish, now time.Time) (c change, warning string, f *fault) {
	c = change{Chain: w.coin, SubPool: w.subPool, PUID: w.puid, At: now, Due: now}
	if c.User, f = s.canonical(w.name); f != nil {
		return c, "", f
	}
	if w.subPool != nil {
		if !s.cfg.Nodes.JSON {
			return c, "", faultf(errOff, "nodes say a user's sub-pool only with nodes.json = true")
		}
		if err := userchain.CheckUser(*w.subPool); *w.subPool != "" && err != nil {
			return c, "", faultf(errBadName, "subpool %.40q %v", *w.subPool, err)
		}
		return c, "", nil
	}
	switch {
	case w.coin == "":
		return c, "", faultf(errNoCoin, "coin is empty")
	case w.coin == userchain.Auto && !s.cfg.AutoChain.Enabled, w.coin != userchain.Auto && !slices.Contains(s.cfg.Chains, w.coin):
		return c, "", faultf(errUnknownCoin, "coin %.40q is unknown", w.coin)
	}
	if w.puid == 0 {
		c.Due, warning = s.lists.safe(c.User, w.coin, now)
	}
	return c, warning, nil
}

// change does what a client asks for and answers: 200 if all of it is written, 202 if some will be, 207 if some is
// refused.
func (s *Service) change(w http.ResponseWriter, r *http.Request, by *client, wishes []wish, wait time.Duration) error {
	if len(wishes) > maxBatch {
		return faultf(errBadRequest, "more than %d users in a request", maxBatch)
	}
	now := time.Now()
	out := results{answer: answerOf(nil), Results: make([]result, len(wishes))}
	changes := make([]change, 0, len(wishes))
	of := make([]int, 0, len(wishes)) // the result of each change
	for i, wish := range wishes {
		c, warning, f := s.changeOf(wish, now)
		res := result{PUName: wish.name, Coin: wish.coin, SubPool: wish.subPool, Warning: warning, State: stateAccepted}
		if f == nil {
			res.PUName = c.User
			changes, of = append(changes, c), append(of, i)
		} else {
			res.refuse(f)
		}
		out.Results[i] = res
	}
	audit := func(all []result) {
		lines := make([]any, len(all))
		for i, res := range all {
			lines[i] = audited{now.UTC(), by.name, r.RemoteAddr, r.URL.Path, res}
		}
		s.audit.write(now, lines...)
	}
	audit(out.Results) // before any of it is done
	if len(changes) > 0 {
		err := s.accept(changes)
		if err == nil {
			await(r.Context(), wait, changes)
		}
		var otherwise []result
		for k, i := range of {
			res := &out.Results[i]
			if err != nil {
				res.refuse(faultf(errUnwritten, "write failed: %v", err))
			} else {
				res.settle(changes[k].outcome)
			}
			if res.State == stateRefused {
				otherwise = append(otherwise, *res)
			}
		}
		audit(otherwise)
	}
	for _, res := range out.Results {
		s.metrics.changes.WithLabelValues(by.name, res.State).Inc()
	}
	out.answer = summary(out.Results)
	s.answered(w, r, statusOfAll(out.Results), out)
	return nil
}

// accept takes in changes, all or none.
func (s *Service) accept(changes []change) error {
	err := s.waiting.accept(changes)
	if err == nil || errors.Is(err, errJournal) {
		s.journal.Set(err)
	}
	return err
}

// await waits until it is known what became of changes that were accepted, or for so long.
func await(ctx context.Context, limit time.Duration, changes []change) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	end := time.Now().Add(limit)
	for _, c := range changes {
		if c.Due.After(end) {
			continue // not within this request
		}
		select {
		case <-ctx.Done():
			return
		case <-c.outcome.known:
		}
	}
}

func (r *result) refuse(f *fault) { r.State, r.ErrNo, r.ErrMsg = stateRefused, f.number, f.message }

// settle has r say what is known of an outcome by now.
func (r *result) settle(o *outcome) {
	select {
	case <-o.known:
	default:
		return
	}
	if r.State = stateWritten; o.nothing {
		r.refuse(faultf(errNotFound, "puname %s mines no chain yet: switch it first", r.PUName))
	}
}

// summary is the first error of all.
func summary(all []result) answer {
	for _, res := range all {
		if res.ErrNo != okay {
			return answer{ErrNo: res.ErrNo, ErrMsg: res.ErrMsg}
		}
	}
	return answerOf(nil)
}

// statusOfAll is the HTTP status of several results.
func statusOfAll(all []result) int {
	status, refused := http.StatusOK, 0
	for _, res := range all {
		switch {
		case res.ErrNo != okay:
			refused++
		case res.State == stateAccepted:
			status = http.StatusAccepted
		}
	}
	switch refused {
	case 0:
		return status
	case len(all):
		return statusOf(summary(all).ErrNo)
	}
	return http.StatusMultiStatus
}

func (s *Service) switchOne(w http.ResponseWriter, r *http.Request, by *client) error {
	form, err := httpapi.LegacyForm(w, r)
	if err != nil {
		return faultf(errBadRequest, "the parameters are not well formed")
	}
	wait, err := waitOf(form.Get("wait"))
	if err != nil {
		return err
	}
	one := wish{name: form.Get("puname"), coin: form.Get("coin")}
	if text := form.Get("puid"); text != "" {
		id, err := strconv.ParseInt(text, 10, 32)
		if err != nil || id <= 0 {
			return faultf(errBadRequest, "puid = %.20q: must be a number above 0", text)
		}
		one.puid = int32(id)
	}
	return s.change(w, r, by, []wish{one}, wait)
}

// switchMany answers the requests for several users, of which empty is the error for none.
func (s *Service) switchMany(empty int) func(http.ResponseWriter, *http.Request, *client) error {
	return func(w http.ResponseWriter, r *http.Request, by *client) error {
		wait, err := waitOf(r.URL.Query().Get("wait"))
		if err != nil {
			return err
		}
		body, err := readJSON[struct {
			UserCoins []struct {
				Coin    string   `json:"coin"`
				PUNames []string `json:"punames"`
			} `json:"usercoins"`
		}](r)
		if err != nil {
			return err
		}
		var wishes []wish
		for _, of := range body.UserCoins {
			for _, name := range of.PUNames {
				wishes = append(wishes, wish{name: name, coin: of.Coin})
			}
		}
		if len(wishes) == 0 {
			return faultf(empty, "usercoins is empty")
		}
		return s.change(w, r, by, wishes, wait)
	}
}

func (s *Service) changeSubPool(w http.ResponseWriter, r *http.Request, by *client) error {
	form, err := httpapi.LegacyForm(w, r)
	if err != nil {
		return faultf(errBadRequest, "the parameters are not well formed")
	}
	wait, err := waitOf(form.Get("wait"))
	if err != nil {
		return err
	}
	return s.change(w, r, by, []wish{{name: form.Get("puname"), subPool: new(form.Get("subpool"))}}, wait)
}

func (s *Service) changeSubPools(w http.ResponseWriter, r *http.Request, by *client) error {
	wait, err := waitOf(r.URL.Query().Get("wait"))
	if err != nil {
		return err
	}
	body, err := readJSON[struct {
		UserSubPools []struct {
			SubPool string   `json:"subpool"`
			PUNames []string `json:"punames"`
		} `json:"usersubpools"`
	}](r)
	if err != nil {
		return err
	}
	var wishes []wish
	for _, of := range body.UserSubPools {
		for _, name := range of.PUNames {
			wishes = append(wishes, wish{name: name, subPool: &of.SubPool})
		}
	}
	if len(wishes) == 0 {
		return faultf(errNoSubPools, "usersubpools is empty")
	}
	return s.change(w, r, by, wishes, wait)
}
