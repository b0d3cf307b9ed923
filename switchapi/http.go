package switchapi

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"btcpool/internal/httpapi"
	"btcpool/internal/service"
	"btcpool/internal/userchain"
)

// OpenAPI describes the API.
//
//go:embed openapi.yaml
var OpenAPI []byte

const (
	maxBody     = 1 << 20 // bytes
	maxBatch    = 10_000  // users in a request
	defaultRate = 50      // requests a second
	rateBurst   = 10      // seconds' worth of them
	// Who shows no token of ours gets so many answers a second, all together.
	strangerRate = 20
	// A switch waits for ZooKeeper for so long unless the request says otherwise, and never longer than maxWait.
	defaultWait = time.Second
	maxWait     = 10 * time.Second
)

// The numbers of errors, those of userChainAPIServer where it has one.
const (
	okay            = 0
	errNoName       = 101
	errBadName      = 102
	errNoCoin       = 103
	errUnknownCoin  = 104
	errUnreadable   = 105
	errUnwritten    = 107
	errNoUserCoins  = 108
	errNoUserCoins2 = 109
	errNoSubPools   = 110
	errBadRequest   = 400
	errUnauthorized = 401
	errOff          = 403
	errNotFound     = 404
	errMethod       = 405
	errTooMany      = 429
	errInternal     = 500
	errNoJobmaker   = 503
	errNoAck        = 504
)

// statusOf is the HTTP status of an error's number.
func statusOf(number int) int {
	switch number {
	case okay:
		return http.StatusOK
	case errUnreadable, errUnwritten:
		return http.StatusServiceUnavailable
	case errUnauthorized, errOff, errNotFound, errMethod, errTooMany, errInternal, errNoJobmaker, errNoAck:
		return number
	}
	return http.StatusBadRequest
}

// fault is an error that a client is told.
type fault struct {
	number  int
	message string
}

func (f *fault) Error() string { return f.message }

func faultf(number int, format string, args ...any) *fault {
	return &fault{number, fmt.Sprintf(format, args...)}
}

// answer is the envelope of all answers but the list's.
type answer struct {
	ErrNo   int    `json:"err_no"`
	ErrMsg  string `json:"err_msg"`
	Success bool   `json:"success"`
}

func answerOf(err error) answer {
	if err == nil {
		return answer{Success: true}
	}
	if f := (*fault)(nil); errors.As(err, &f) {
		return answer{ErrNo: f.number, ErrMsg: f.message}
	}
	return answer{ErrNo: errInternal, ErrMsg: "internal error"}
}

// client is one that may use the API.
type client struct {
	name     string
	hash     [sha256.Size]byte
	mayWrite bool
	rate     *rate.Limiter
}

func newClient(cfg Client) (*client, error) {
	perSecond := cfg.Rate
	if perSecond == 0 {
		perSecond = defaultRate
	}
	c := &client{name: cfg.Name, mayWrite: cfg.MayWrite, rate: rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond*rateBurst)))}
	if cfg.TokenSHA256 != "" {
		_, err := hex.Decode(c.hash[:], []byte(cfg.TokenSHA256))
		return c, err
	}
	token, err := cfg.token().Read()
	c.hash = sha256.Sum256([]byte(token))
	return c, err
}

// who returns the client whose token a request shows, as a bearer's or as the password of Basic authentication; nil:
// nobody we know. It takes the same time whatever is shown.
func (s *Service) who(r *http.Request) (who *client) {
	user, token, basic := r.BasicAuth()
	if !basic {
		token, _ = strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	}
	hash := sha256.Sum256([]byte(token))
	for _, c := range s.clients {
		if subtle.ConstantTimeCompare(hash[:], c.hash[:]) == 1 && (!basic || user == c.name) {
			who = c
		}
	}
	return who
}

// endpoint is something that clients may ask for.
type endpoint struct {
	paths   []string
	methods []string
	writes  bool
	do      func(w http.ResponseWriter, r *http.Request, c *client) error
}

func (s *Service) endpoints() []endpoint {
	post, both := []string{"POST"}, []string{"GET", "POST"}
	return []endpoint{
		{[]string{"/switch", "/user/switch-chain"}, both, true, s.switchOne},
		{[]string{"/switch/multi-user", "/switch-multi-user"}, post, true, s.switchMany(errNoUserCoins)},
		{[]string{"/user/switch-chain/multi"}, post, true, s.switchMany(errNoUserCoins2)},
		{[]string{"/user/change-subpool"}, both, true, s.changeSubPool},
		{[]string{"/user/change-subpool/multi"}, post, true, s.changeSubPools},
		{[]string{"/subpool/get-coinbase", "/subpool-get-coinbase"}, post, false, s.getCoinbase},
		{[]string{"/subpool/update-coinbase", "/subpool-update-coinbase"}, post, true, s.updateCoinbase},
		{[]string{"/status"}, []string{"GET"}, false, s.getStatus},
		{[]string{"/"}, both, false, s.getList},
	}
}

func (s *Service) handler() http.Handler {
	mux := http.NewServeMux()
	for _, e := range s.endpoints() {
		for _, path := range e.paths {
			pattern := path
			if path == "/" {
				pattern = "/{$}"
			}
			mux.Handle(pattern, s.guarded(path, e))
		}
	}
	mux.HandleFunc("GET /openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(OpenAPI) // the client may be gone
	})
	mux.Handle("/", s.guarded("", endpoint{do: func(http.ResponseWriter, *http.Request, *client) error {
		return faultf(errNotFound, "there is nothing at this path")
	}}))
	return mux
}

// guarded lets clients in.
func (s *Service) guarded(path string, e endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := s.who(r)
		err := s.admit(w, r, e, c)
		if err == nil {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			err = e.do(w, r, c)
		}
		if err != nil {
			a := answerOf(err)
			if a.ErrNo == errInternal {
				s.log.Error().Err(err).Str("path", path).Msg("a request failed")
			}
			s.answer(w, statusOf(a.ErrNo), a)
			s.metrics.requests.WithLabelValues(path, strconv.Itoa(statusOf(a.ErrNo))).Inc()
		}
	})
}

// admit tells why a client's request, or a stranger's, is not answered; nil: it is.
func (s *Service) admit(w http.ResponseWriter, r *http.Request, e endpoint, c *client) error {
	if c == nil {
		s.metrics.strangers.Inc()
		s.strangerLog.Do(func() { s.log.Warn().Str("from", r.RemoteAddr).Msg("a request shows no token of ours") })
		if !s.strangers.Allow() {
			return faultf(errTooMany, "too many requests without a token of ours")
		}
		w.Header().Add("WWW-Authenticate", "Bearer")
		w.Header().Add("WWW-Authenticate", `Basic realm="switchapi"`)
		return faultf(errUnauthorized, "the token is not ours")
	}
	switch site := r.Header.Get("Sec-Fetch-Site"); {
	case !c.rate.Allow():
		return faultf(errTooMany, "%s asks more often than it may", c.name)
	case e.writes && !c.mayWrite:
		return faultf(errOff, "%s may read only", c.name)
	case e.writes && site != "" && site != "none" && site != "same-origin": // a browser that remembers the password sends it
		return faultf(errOff, "a page of another site asks")
	case e.methods != nil && !slices.Contains(e.methods, r.Method):
		w.Header().Set("Allow", strings.Join(e.methods, ", "))
		return faultf(errMethod, "only %s is answered here", strings.Join(e.methods, ", "))
	}
	return nil
}

func (s *Service) answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Cache-Control", "no-store")
	httpapi.Write(w, status, v)
}

// answered is answer for what went well, or partly.
func (s *Service) answered(w http.ResponseWriter, r *http.Request, status int, v any) {
	s.metrics.requests.WithLabelValues(r.URL.Path, strconv.Itoa(status)).Inc()
	s.answer(w, status, v)
}

// readJSON reads a request's body.
func readJSON[T any](r *http.Request) (v T, err error) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return v, faultf(errBadRequest, "the body cannot be read, or is longer than %d bytes", maxBody)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return v, faultf(errBadRequest, "the body is not the JSON that is described: %v", err)
	}
	return v, nil
}

// waitOf returns how long a request waits for ZooKeeper.
func waitOf(text string) (time.Duration, error) {
	if text == "" {
		return defaultWait, nil
	}
	ms, err := strconv.Atoi(text)
	if err != nil || ms < 0 || ms > int(maxWait.Milliseconds()) {
		return 0, faultf(errBadRequest, "wait = %.20q: must be 0 to %d milliseconds", text, maxWait.Milliseconds())
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// getList answers as a chain's list of users does, so that servers may ask here.
func (s *Service) getList(w http.ResponseWriter, r *http.Request, _ *client) error {
	form, err := httpapi.LegacyForm(w, r)
	if err != nil {
		return faultf(errBadRequest, "the parameters are not well formed")
	}
	coin := form.Get("coin")
	if coin != "" && !slices.Contains(s.cfg.Chains, coin) {
		return faultf(errUnknownCoin, "coin %.40q is unknown", coin)
	}
	last, err := strconv.ParseInt(cmp.Or(form.Get("last_id"), "0"), 10, 32)
	if err != nil || last < 0 {
		return faultf(errBadRequest, "last_id must be a number")
	}
	s.answered(w, r, http.StatusOK, struct {
		ErrNo  int              `json:"err_no"`
		ErrMsg *string          `json:"err_msg"`
		Data   map[string]int32 `json:"data"`
	}{Data: s.lists.after(coin, int32(last))})
	return nil
}

// status is the service in short.
type status struct {
	Version   string            `json:"version"`
	ZooKeeper string            `json:"zookeeper"` // what is wrong; "": nothing
	Accepted  int               `json:"accepted"`  // users whose switch is not written yet
	Chores    int               `json:"chores"`
	OldestS   float64           `json:"oldest_seconds"` // since the switch is due that waits for the longest
	Users     map[string]int    `json:"users"`          // by list
	Auto      *decision         `json:"auto"`           // the last one; null: none
	Servers   map[string]string `json:"servers"`        // what each server said to the last command
}

func (s *Service) getStatus(w http.ResponseWriter, r *http.Request, _ *client) error {
	now := time.Now()
	st := status{Version: service.Version(), Users: s.lists.counts(), Servers: map[string]string{}}
	var since time.Time
	st.Accepted, st.Chores, since = s.waiting.counts(now)
	if !since.IsZero() {
		st.OldestS = now.Sub(since).Seconds()
	}
	if err := s.zookeeper.Err(); err != nil {
		st.ZooKeeper = err.Error()
	}
	if s.auto != nil {
		st.Auto, st.Servers = s.auto.status()
	}
	s.answered(w, r, http.StatusOK, st)
	return nil
}

// canonical returns what a user is called here, and what is wrong with that.
func (s *Service) canonical(name string) (string, *fault) {
	if name = s.cfg.Users.config().Fold(name); name == "" {
		return "", faultf(errNoName, "puname is empty")
	}
	if err := userchain.CheckUser(name); err != nil {
		return "", faultf(errBadName, "puname %.40q %v", name, err)
	}
	return name, nil
}
