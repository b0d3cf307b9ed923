package notify

import "time"

// Subject is whose figures something is about: a worker, a user (WorkerID 0) or the pool (UserID 0 too).
type Subject struct {
	UserID   int32  `json:"user_id,omitempty"`
	WorkerID int64  `json:"worker_id,omitempty"`
	User     string `json:"user,omitempty"`
	Worker   string `json:"worker,omitempty"`
}

// Figures are those of a subject at one moment.
type Figures struct {
	Last int64 `json:"last,omitempty"` // unix time of the last share
	// Rate is the hashrate of the last quarter of an hour and Mean the one to compare it with, if RateKnown. Expected is
	// how many shares Mean makes in a quarter of an hour.
	RateKnown bool    `json:"-"`
	Rate      float64 `json:"rate,omitempty"`
	Mean      float64 `json:"mean,omitempty"`
	Expected  float64 `json:"expected,omitempty"`
	// Shares are those of the last quarter of an hour, Refused the late and rejected of them.
	Shares  uint64 `json:"shares,omitempty"`
	Refused uint64 `json:"refused,omitempty"`
}

// Sight is what was seen of a subject.
type Sight struct {
	Subject
	Figures
}

// verdict is what a figure says: between the threshold of what is bad and that of what is good again it says nothing.
type verdict int

const (
	unknown verdict = iota
	good
	bad
)

const (
	settle      = time.Minute        // a worker's silence holds, so that shares that come late are counted
	newMean     = 24 * time.Hour     // after which a hashrate that fell is compared with the new mean
	forgetAfter = 7 * 24 * time.Hour // of what does not end
	mostTracked = 100_000            // conditions
)

// condition is something bad that is told, may be told soon, or was told and is over.
type condition struct {
	Event Event `json:"event"`
	Subject
	Figures
	Raised bool  `json:"raised"`
	Since  int64 `json:"since"`            // unix time at which Raised became what it is, or the condition began
	Turned int64 `json:"turned,omitempty"` // unix time since which its figures say the contrary of Raised, 0: they do not
	// Base is the mean from which a hashrate fell.
	Base float64 `json:"base,omitempty"`

	// Told are the targets which know it as raised.
	Told []string `json:"told,omitempty"`
}

type conditionKey struct {
	event    Event
	userID   int32
	workerID int64
}

func (c *condition) key() conditionKey { return conditionKey{c.Event, c.UserID, c.WorkerID} }

// judge takes in a sight.
func (s *state) judge(cfg Config, now time.Time, sight Sight) {
	if sight.WorkerID != 0 {
		s.turn(WorkerSilent, sight, now, settle, cfg.HoldFor.Std(), func(c *condition) verdict { return s.silence(cfg, now, sight, c) })
	} else {
		s.turn(HashrateFallen, sight, now, cfg.HoldFor.Std(), cfg.HoldFor.Std(), func(c *condition) verdict { return fall(cfg, now, sight, c) })
	}
	s.turn(RejectsHigh, sight, now, cfg.HoldFor.Std(), cfg.HoldFor.Std(), func(*condition) verdict { return rejects(cfg, sight) })
}

// silence: a worker that was silent at the look before, and of which nothing is known, has been so for long.
func (s *state) silence(cfg Config, now time.Time, sight Sight, c *condition) verdict {
	since := time.Unix(sight.Last, 0).Add(cfg.SilentAfter.Std())
	switch {
	case sight.Last == 0:
		return unknown
	case since.After(now):
		return good
	case c == nil && (s.Looked == 0 || since.Unix() < s.Looked):
		return unknown
	}
	return bad
}

// fall compares a hashrate with its mean, or with the one that it fell from. With half of the fall made up it is good.
func fall(cfg Config, now time.Time, sight Sight, c *condition) verdict {
	if !sight.RateKnown {
		return unknown
	}
	base := sight.Mean
	if c != nil && c.Base != 0 && (!c.Raised || now.Unix()-c.Since < int64(newMean/time.Second) || base == 0) {
		base = c.Base
	}
	part := float64(cfg.HashrateFall) / 100
	switch {
	case base == 0:
		return unknown
	case sight.Rate >= base*(1-part/2):
		return good
	case sight.Rate >= base*(1-part):
		return unknown
	case c == nil && sight.Expected < float64(cfg.MinShares):
		return unknown
	}
	return bad
}

// rejects judges the refused part of all shares. With half of the threshold it is good.
func rejects(cfg Config, sight Sight) verdict {
	if sight.Shares < uint64(cfg.MinShares) {
		return unknown
	}
	switch percent := 100 * float64(sight.Refused) / float64(sight.Shares); {
	case percent > float64(cfg.RejectsAbove):
		return bad
	case percent <= float64(cfg.RejectsAbove)/2:
		return good
	}
	return unknown
}

// turn raises a condition that was bad for as long as hold, and ends one that was good for as long as rest.
func (s *state) turn(e Event, sight Sight, now time.Time, hold, rest time.Duration, judge func(*condition) verdict) {
	key := conditionKey{e, sight.UserID, sight.WorkerID}
	c := s.conditions[key]
	v := judge(c)
	if c == nil {
		if v != bad {
			return
		}
		if len(s.conditions) >= mostTracked {
			s.untracked++
			return
		}
		c = &condition{Event: e, Since: now.Unix()}
		if e == HashrateFallen {
			c.Base = sight.Mean
		}
		s.conditions[key] = c
	}
	c.Subject, c.Figures = sight.Subject, sight.Figures
	contrary, long := bad, hold
	if c.Raised {
		contrary, long = good, rest
	}
	switch {
	case v != contrary: // so it has to hold all the time
		s.dirty = s.dirty || c.Turned != 0
		c.Turned = 0
		return
	case c.Turned == 0:
		c.Turned = now.Unix()
		s.dirty = true
	}
	if now.Unix()-c.Turned >= int64(long/time.Second) {
		c.Raised, c.Since, c.Turned = !c.Raised, c.Turned, 0
		s.dirty = true
	}
}
