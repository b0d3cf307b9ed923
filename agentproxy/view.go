package agentproxy

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"btcpool/internal/service"
)

// measuring is after what time there is something to say about a machine's hashrate.
const measuring = time.Minute

// snapshotAge is for how long what was seen of the loop is shown: whoever looks at the page does not slow the miners.
const snapshotAge = time.Second

// The shapes of the API, described in openapi.yaml.
type (
	summary struct {
		Version   string        `json:"version"`
		Time      time.Time     `json:"time"`
		Started   time.Time     `json:"started"`
		Fault     *string       `json:"fault"`
		MultiUser bool          `json:"multi_user"`
		Verdicts  string        `json:"verdicts"`
		Miners    int           `json:"miners"`
		Waiting   int           `json:"waiting"`
		Silent    int           `json:"silent"`
		Hashrate  float64       `json:"hashrate"`
		Accepted  uint64        `json:"accepted"`
		Easy      uint64        `json:"answered_here"`
		Rejected  uint64        `json:"rejected"`
		Accounts  []accountInfo `json:"accounts"`
		Goals     []goalInfo    `json:"goals"`
		Links     []linkInfo    `json:"links"`
	}
	accountInfo struct {
		Name     string  `json:"name"`
		Miners   int     `json:"miners"`
		Hashrate float64 `json:"hashrate"`
	}
	goalInfo struct {
		Account  string  `json:"account"`
		Pool     string  `json:"pool"`
		Weight   float64 `json:"weight"`
		Part     float64 `json:"part"`
		Miners   int     `json:"miners"`
		Hashrate float64 `json:"hashrate"`
	}
	linkInfo struct {
		Account     string     `json:"account"`
		Pool        string     `json:"pool"`
		Proxy       *string    `json:"proxy"`
		Protocol    Protocol   `json:"protocol"`
		State       string     `json:"state"`
		Since       time.Time  `json:"since"`
		Miners      int        `json:"miners"`
		VersionMask string     `json:"version_mask"`
		Difficulty  float64    `json:"difficulty"`
		RoundTrip   *float64   `json:"round_trip"`
		LastJob     *time.Time `json:"last_job"`
		BytesIn     int64      `json:"bytes_in"`
		BytesOut    int64      `json:"bytes_out"`
		Unanswered  int        `json:"unanswered"`
	}
	worker struct {
		Account    string            `json:"account"`
		Name       string            `json:"name"`
		IP         string            `json:"ip"`
		Software   string            `json:"software"`
		Online     bool              `json:"online"`
		Silent     bool              `json:"silent"`
		Since      time.Time         `json:"since"`
		LastShare  *time.Time        `json:"last_share"`
		Hashrate   *float64          `json:"hashrate"`
		Difficulty float64           `json:"difficulty"`
		Accepted   uint64            `json:"accepted"`
		Easy       uint64            `json:"answered_here"`
		Rejected   uint64            `json:"rejected"`
		Rejects    map[string]uint64 `json:"rejects"`
		Pool       *string           `json:"pool"`

		left   time.Time // when it has
		login  string    // the account that it names, "" if it names none
		goal   *goal
		record *record // nil: it is connected
	}
	workers struct {
		Total   int      `json:"total"`
		Workers []worker `json:"workers"`
	}
)

// view keeps the latest snapshot for all who look.
type view struct {
	mu   sync.Mutex
	last *snapshot
}

// snapshot is what there was to see at a time. It does not change.
type snapshot struct {
	at      time.Time
	summary summary
	workers []worker
}

// look returns what there is to see, at most snapshotAge old.
func (s *Service) look(ctx context.Context) (*snapshot, error) {
	s.view.mu.Lock()
	defer s.view.mu.Unlock()
	if last := s.view.last; last != nil && time.Since(last.at) < snapshotAge {
		return last, nil
	}
	snap := &snapshot{at: time.Now()}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := s.loop.Call(ctx, func() { s.fill(snap) }); err != nil {
		return nil, err
	}
	for _, w := range snap.workers {
		snap.summary.Accepted += w.Accepted
		snap.summary.Easy += w.Easy
		if w.Silent {
			snap.summary.Silent++
		}
		snap.summary.Rejected += w.Rejected
	}
	s.view.last = snap
	return snap, nil
}

// fill is called by the loop.
func (s *Service) fill(snap *snapshot) {
	now := time.Now()
	sum := &snap.summary
	*sum = summary{
		Version: service.Version(), Time: now.UTC(), Started: s.started.UTC(), MultiUser: s.cfg.MultiUser,
		Verdicts: "proxy", Accounts: []accountInfo{}, Goals: []goalInfo{}, Links: []linkInfo{},
	}
	if s.cfg.PoolVerdicts {
		sum.Verdicts = "pool"
	}
	if err := s.Ready(); err != nil {
		text := err.Error()
		sum.Fault = &text
	}
	snap.workers = make([]worker, 0, len(s.miners)+len(s.gone.workers))
	for _, a := range s.accounts {
		all := a.load()
		for _, g := range a.goals {
			info := goalInfo{Account: g.account(), Pool: g.main().Addr, Weight: g.weight, Miners: g.miners}
			if all > 0 {
				info.Part = g.load / all
			}
			for m := range a.miners {
				if m.goal != g {
					continue
				}
				w := m.info(now)
				info.Hashrate += orZero(w.Hashrate)
				snap.workers = append(snap.workers, w)
				if m.link == nil {
					sum.Waiting++
				}
			}
			sum.Miners += info.Miners
			sum.Hashrate += info.Hashrate
			sum.Goals = append(sum.Goals, info)
		}
		for l := range a.links {
			sum.Links = append(sum.Links, l.info())
		}
	}
	snap.workers = append(snap.workers, s.gone.workers...)
	slices.SortStableFunc(sum.Goals, func(a, b goalInfo) int { return cmp.Compare(a.Account, b.Account) })
	for _, g := range sum.Goals {
		if n := len(sum.Accounts); n == 0 || sum.Accounts[n-1].Name != g.Account {
			sum.Accounts = append(sum.Accounts, accountInfo{Name: g.Account})
		}
		account := &sum.Accounts[len(sum.Accounts)-1]
		account.Miners += g.Miners
		account.Hashrate += g.Hashrate
	}
	slices.SortFunc(sum.Links, func(a, b linkInfo) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), a.Since.Compare(b.Since))
	})
}

func (m *miner) info(now time.Time) worker {
	c := &m.counts
	w := worker{
		Account: m.goal.account(), Name: m.worker, IP: m.ip.String(), Software: m.software, Online: true, Silent: m.silent,
		Since: c.since.UTC(), Difficulty: m.told,
		Accepted: c.accepted, Easy: c.easy, Rejected: c.rejected, Rejects: make(map[string]uint64, len(c.rejects)),
	}
	w.login, w.goal = m.acct.name, m.goal
	if now.Sub(c.since) >= measuring {
		rate := c.hashes.perSecond(now)
		w.Hashrate = &rate
	}
	for _, r := range c.rejects {
		w.Rejects[r.status.Text()] += r.shares
	}
	if !c.lastShare.IsZero() {
		at := c.lastShare.UTC()
		w.LastShare = &at
	}
	if m.link != nil {
		pool := m.link.addr()
		w.Pool = &pool
	}
	return w
}

func (l *link) info() linkInfo {
	info := linkInfo{
		Account: l.accountName(), Pool: l.addr(), Protocol: Protocol(l.protocol()), State: "logging in", Since: l.began.UTC(),
		Miners: len(l.miners), VersionMask: fmt.Sprintf("%08x", l.versionBits&defaultVersionBits), Difficulty: l.difficulty,
		BytesIn: l.bytesIn, BytesOut: l.bytesOut, Unanswered: len(l.questions),
	}
	switch {
	case l.replaced:
		info.State = "ending"
	case l.up():
		info.State = "up"
	}
	if l.via != "" {
		info.Proxy = &l.via
	}
	if l.roundTrip > 0 {
		seconds := l.roundTrip.Seconds()
		info.RoundTrip = &seconds
	}
	if l.work != nil {
		at := l.work.since.UTC()
		info.LastJob = &at
	}
	return info
}
