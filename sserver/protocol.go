package sserver

import (
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/share"
	v1 "btcpool/internal/stratum/v1"
	"btcpool/sserver/operator"
)

// protocol is what a session speaks. It parses what arrives, calls the session's verbs (subscribe, logIn, rollVersion,
// limit, wish, submit and those of a farm), and appends what the session has to say. All its methods append to dst and
// return it.
type protocol interface {
	// handle handles the first message of in and appends the answer. n is the message's length, 0 when it has not
	// arrived completely. An error ends the session, after the answer.
	handle(dst, in []byte) (out []byte, n int, err error)
	// loggedIn appends the answer to a login that had to wait.
	loggedIn(dst []byte, status share.Status) []byte
	// announce appends a job.
	announce(dst []byte, a announcement) []byte
	// reconnect appends what sends the miner elsewhere.
	reconnect(dst []byte, to operator.Place) []byte
	// sign appends a sign of life for an agent.
	sign(dst []byte) []byte
	// message appends a text for the miner's display.
	message(dst []byte, text string) []byte
}

// announcement is what a miner is told of a job.
type announcement struct {
	work          *work
	coinbase      *coinbase // of the work
	number        uint32    // of the job in this session
	first         bool
	later         uint32 // seconds to add to its time
	clean         bool   // the jobs before are worthless
	difficulty    bitcoin.Difficulty
	newDifficulty bool
	farm          map[uint16]bitcoin.Difficulty // new ones of an agent's miners
}

// renditions are a job in the words of every protocol, made once for all sessions.
type renditions struct{ v1 v1.Job }

// renderer returns what makes the renditions of a job, for the sizes of extranonce2 that the configuration names and
// that of agents.
func renderer(cfg Config) func(*job.StratumJob) renditions {
	sizes := []int{job.Extranonce2Size}
	for _, l := range cfg.places() {
		sizes = append(sizes, l.NonceBytes)
	}
	if cfg.GrandPool {
		sizes = append(sizes, job.GrandExtranonce2Size)
	}
	return func(j *job.StratumJob) renditions { return renditions{v1.NewJob(j, sizes)} }
}

// maxBadInputs within badWindow end a session: what comes is no Stratum V1.
const (
	maxBadInputs = 5
	badWindow    = time.Minute
)

// stratumV1 has a session speak Stratum V1: it is the session's protocol, and the conversation's v1.Session.
type stratumV1 struct{ *session }

func (s stratumV1) conn() v1.Conn { return v1.Conn{State: &s.V1, Session: s} }

func (s stratumV1) handle(dst, in []byte) ([]byte, int, error) { return s.conn().Handle(dst, in) }

func (s stratumV1) loggedIn(dst []byte, status share.Status) []byte {
	return s.conn().LoggedIn(dst, status)
}

func (s stratumV1) announce(dst []byte, a announcement) []byte {
	return s.conn().Announce(dst, &v1.Announcement{
		Job:           &a.coinbase.renditions.v1,
		Number:        a.number,
		First:         a.first,
		Later:         a.later,
		Clean:         a.clean,
		Difficulty:    a.difficulty,
		NewDifficulty: a.newDifficulty,
		Miners:        a.farm,
	})
}

func (s stratumV1) reconnect(dst []byte, to operator.Place) []byte {
	return s.conn().AppendReconnect(dst, to.Host, to.Port)
}

func (s stratumV1) sign(dst []byte) []byte { return s.conn().AppendSign(dst) }

func (s stratumV1) message(dst []byte, text string) []byte { return s.conn().AppendMessage(dst, text) }

func (s stratumV1) Subscribe(software string, before uint32, resume bool) (v1.Subscription, share.Status) {
	if s.Phase != connected {
		return v1.Subscription{}, share.StatusUnknown
	}
	s.subscribe(software, before, resume)
	return v1.Subscription{
		ExtraNonce1:     s.ID,
		ExtraNonce2Size: s.nonceBytes(),
		UniqueJobIDs:    isNiceHash(software),
	}, share.StatusAccept
}

func (s stratumV1) Name(software string) { s.Agent = software }

func (s stratumV1) LogIn(name string, wishes v1.Wishes) (share.Status, bool) {
	return s.logIn(name, wishes)
}

func (s stratumV1) LoggedIn() bool                      { return s.Phase == authorized }
func (s stratumV1) VersionBits() uint32                 { return s.srv.versionMask }
func (s stratumV1) RollVersion(mask, _ uint32)          { s.VersionMask = mask }
func (s stratumV1) WishDifficulty(d bitcoin.Difficulty) { s.wish(d) }

func (s stratumV1) LimitDifficulty(floor bitcoin.Difficulty) {
	s.OwnFloor = true
	s.limit(floor)
}

func (s stratumV1) Submit(sub v1.Submission) (status share.Status, done bool) {
	if s.Grand && len(sub.Worker) == 0 {
		return s.judge(&submission{Submission: sub, miner: &s.Miner, worker: &s.Workers[0], grand: true}), true
	}
	w, stranger := s.credited(sub.Worker)
	return s.judge(&submission{Submission: sub, miner: &s.Miner, worker: w, stranger: stranger, grand: s.Grand}), true
}

func (s stratumV1) SessionKey() uint64                    { return s.srv.ids.key(s.ID) }
func (s stratumV1) EndSession(id uint32, key uint64) bool { return s.endOther(id, key) }

func (s stratumV1) SpeaksForFarm() bool { return s.Farm != nil && s.Phase == authorized }

func (s stratumV1) Register(number uint16, worker, software string) {
	s.register(number, worker, software)
}

func (s stratumV1) Unregister(number uint16) { s.unregister(number) }

func (s stratumV1) SubmitOf(number uint16, sub v1.Submission) (status share.Status, known bool) {
	m := s.Farm.Miners[number]
	if m == nil {
		s.srv.metrics.framesIgnored.WithLabelValues("unregistered").Inc()
		return 0, false
	}
	status = s.judge(&submission{Submission: sub, miner: &m.miner, worker: &m.worker})
	m.Tally.add(status, s.loop.now)
	return status, true
}

func (s stratumV1) BadInput() { s.srv.metrics.badLines.Inc() }

func (s stratumV1) Gibberish() (tooMuch bool) {
	if s.loop.now.Sub(s.BadSince) >= badWindow {
		s.BadSince, s.BadInputs = s.loop.now, 0
	}
	s.BadInputs++
	return s.BadInputs >= maxBadInputs
}

func (s stratumV1) CutFrame() { s.srv.metrics.framesCut.Inc() }

func (s stratumV1) IgnoreFrame(reason string) {
	s.srv.metrics.framesIgnored.WithLabelValues(reason).Inc()
}
