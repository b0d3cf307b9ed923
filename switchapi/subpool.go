package switchapi

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"btcpool/internal/registry"
	"btcpool/internal/retry"
	"btcpool/internal/userchain"
)

const (
	ackTimeout = 5 * time.Second
	ackStep    = 50 * time.Millisecond
	maxUpdate  = 8192 // bytes: jobmaker takes no more
	maxAck     = 64 << 10
)

// coinbaseRequest is what jobmaker is asked by a sub-pool's node. One with a RequestID has it in the answer.
type coinbaseRequest struct {
	Coin         string `json:"coin"`
	SubPool      string `json:"subpool_name"`
	CoinbaseInfo string `json:"coinbase_info"`
	PayoutAddr   string `json:"payout_addr"`
	RequestID    string `json:"request_id"`
}

// coinbase is what a sub-pool puts into blocks.
type coinbase struct {
	CoinbaseInfo string `json:"coinbase_info"`
	PayoutAddr   string `json:"payout_addr"`
}

// coinbaseAnswer is what jobmaker answers, in the envelope of ours.
type coinbaseAnswer struct {
	ErrNo     int       `json:"err_no"`
	Success   bool      `json:"success"`
	CreatedAt string    `json:"created_at"`
	SubPool   string    `json:"subpool_name"`
	Old       coinbase  `json:"old"`
	New       *coinbase `json:"new"` // null: nothing was changed
	Message   string    `json:"err_msg"`
}

// parseAck reads jobmaker's answer, and of which request.
func parseAck(text []byte) (a coinbaseAnswer, request string, err error) {
	if len(text) > maxAck {
		return a, "", errors.New("too long")
	}
	var ack struct {
		coinbaseAnswer
		RequestID string `json:"request_id"`
	}
	if err := json.Unmarshal(text, &ack); err != nil {
		return a, "", err
	}
	ack.ErrNo = okay
	return ack.coinbaseAnswer, ack.RequestID, nil
}

// subPoolOf reads a request for a sub-pool and returns the path of its node.
func (s *Service) subPoolOf(r *http.Request) (body coinbaseRequest, path string, err error) {
	if body, err = readJSON[coinbaseRequest](r); err != nil {
		return body, "", err
	}
	switch {
	case s.cfg.Nodes.SubPool == "":
		return body, "", faultf(errOff, "nodes.subpool is not configured")
	case body.Coin == "":
		return body, "", faultf(errNoCoin, "coin is empty")
	case !slices.Contains(s.cfg.Chains, body.Coin):
		return body, "", faultf(errUnknownCoin, "coin %.40q is unknown", body.Coin)
	}
	if err := userchain.CheckUser(body.SubPool); err != nil {
		return body, "", faultf(errBadRequest, "subpool_name %.40q %v", body.SubPool, err)
	}
	return body, s.cfg.Nodes.SubPool + "/" + body.Coin + "/" + body.SubPool, nil
}

func (s *Service) getCoinbase(w http.ResponseWriter, r *http.Request, _ *client) error {
	_, path, err := s.subPoolOf(r)
	if err != nil {
		return err
	}
	a, err := s.handshake(r.Context(), path, nil, "")
	if err != nil {
		return err
	}
	if a.Message == "empty request" { // jobmaker has what it began with
		a.Success, a.Message = true, "success"
	}
	s.answered(w, r, http.StatusOK, a)
	return nil
}

func (s *Service) updateCoinbase(w http.ResponseWriter, r *http.Request, by *client) error {
	body, path, err := s.subPoolOf(r)
	if err != nil {
		return err
	}
	body.RequestID = rand.Text()
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	if len(text) > maxUpdate {
		return faultf(errBadRequest, "the request is longer than %d bytes", maxUpdate)
	}
	audit := func(a answer) {
		now := time.Now()
		s.audit.write(now, struct {
			Time   time.Time `json:"time"`
			Client string    `json:"client"`
			From   string    `json:"from"`
			Path   string    `json:"path"`
			coinbaseRequest
			answer
		}{now.UTC(), by.name, r.RemoteAddr, r.URL.Path, body, a})
	}
	audit(answer{ErrMsg: "asked"}) // before it is done, which may be later than anybody waits
	a, err := s.handshake(r.Context(), path, text, body.RequestID)
	if err != nil {
		audit(answerOf(err))
		return err
	}
	audit(answer{ErrNo: a.ErrNo, ErrMsg: a.Message, Success: a.Success})
	s.answered(w, r, http.StatusOK, a)
	return nil
}

// handshake writes a request into a sub-pool's node, or what is there once more if it is nil, and returns what jobmaker
// says to that.
func (s *Service) handshake(ctx context.Context, path string, request []byte, id string) (a coinbaseAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	node, err := s.nodes.Get(ctx, path)
	if errors.Is(err, registry.ErrNoNode) {
		return a, faultf(errNotFound, "there is no such sub-pool")
	} else if err != nil {
		return a, faultf(errUnreadable, "read failed: %v", err)
	}
	if _, err := s.nodes.Get(ctx, path+"/ack"); errors.Is(err, registry.ErrNoNode) {
		return a, faultf(errNoJobmaker, "no jobmaker answers for the sub-pool")
	} else if err != nil {
		return a, faultf(errUnreadable, "read failed: %v", err)
	}
	if request == nil {
		request = node.Content
	}
	written, err := s.nodes.Set(ctx, path, request, node.Version)
	if errors.Is(err, registry.ErrChanged) {
		return a, faultf(errInternal, "the sub-pool has been changed at the same time: ask again")
	} else if err != nil {
		return a, faultf(errUnwritten, "write failed: %v", err)
	}
	for retry.Sleep(ctx, ackStep) {
		ack, err := s.nodes.Get(ctx, path+"/ack")
		if err != nil || ack.Written < written {
			continue
		}
		a, of, err := parseAck(ack.Content)
		if err != nil {
			s.metrics.invalid.WithLabelValues("ack").Inc()
			return a, faultf(errInternal, "jobmaker's answer cannot be read")
		}
		if of == id || of == "" || id == "" { // btcpool's jobmaker says no id
			return a, nil
		}
	}
	return a, faultf(errNoAck, "jobmaker has not answered in time: it may do what was asked for all the same")
}
