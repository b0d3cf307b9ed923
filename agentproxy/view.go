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
		Hashrate  float64       `json:"hashrate"`
		Accepted  uint64        `json:"accepted"`
		Rejected  uint64        `json:"rejected"`
		Accounts  []accountInfo `json:"accounts"`
		Links     []linkInfo    `json:"links"`
	}
	accountInfo struct {
		Name     string  `json:"name"`
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
		Since      time.Time         `json:"since"`
		LastShare  *time.Time        `json:"last_share"`
		Hashrate   *float64          `json:"hashrate"`
		Difficulty float64           `json:"difficulty"`
		Accepted   uint64            `json:"accepted"`
		Rejected   uint64            `json:"rejected"`
		Rejects    map[string]uint64 `json:"rejects"`
		Pool       *string           `json:"pool"`

		left time.Time // when it has
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
		Verdicts: "proxy", Accounts: []accountInfo{}, Links: []linkInfo{},
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
		info := accountInfo{Name: a.title(), Miners: len(a.miners)}
		for m := range a.miners {
			w := m.info(now)
			info.Hashrate += orZero(w.Hashrate)
			snap.workers = append(snap.workers, w)
			if m.link == nil {
				sum.Waiting++
			}
		}
		sum.Miners += info.Miners
		sum.Hashrate += info.Hashrate
		sum.Accounts = append(sum.Accounts, info)
		for l := range a.links {
			sum.Links = append(sum.Links, l.info())
		}
	}
	snap.workers = append(snap.workers, s.gone.workers...)
	slices.SortFunc(sum.Accounts, func(a, b accountInfo) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(sum.Links, func(a, b linkInfo) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), a.Since.Compare(b.Since))
	})
}

// title is what an account is called for people.
func (a *account) title() string {
	if a.name != "" || len(a.svc.cfg.Pools) == 0 {
		return a.name
	}
	return a.svc.cfg.Pools[0].Account
}

func (m *miner) info(now time.Time) worker {
	c := &m.counts
	w := worker{
		Account: m.acct.title(), Name: m.worker, IP: m.ip.String(), Software: m.software, Online: true,
		Since: c.since.UTC(), Difficulty: m.told,
		Accepted: c.accepted, Rejected: c.rejected, Rejects: make(map[string]uint64, len(c.rejects)),
	}
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
