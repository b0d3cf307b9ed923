package slparser

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/store"
)

// Print says which shares of the days are printed, and how.
type Print struct {
	// User is an id, or a name that the database knows; 0 stands for all.
	User string
	// Format is text, as btcpool prints, csv or json; text by default.
	Format string
	// Worker is a worker's name without its user's, id=… with its number, or a pattern with * and ? for workers whose
	// names the database knows; "" stands for all.
	Worker string
	// Status lists numbers, accepted, stale and rejected, with commas; "" stands for all.
	Status string
	// From and To bound the time: From is part of it, To is not. Both are RFC 3339, or HH:MM or HH:MM:SS of each day.
	From, To string
}

func (p Print) asked() bool { return p.User != "" }

// flags are those that only make sense with a user.
func (p Print) flags() map[string]string {
	return map[string]string{"-format": p.Format, "-worker": p.Worker, "-status": p.Status, "-from": p.From, "-to": p.To}
}

// needsDatabase tells whether names have to be looked up.
func (p Print) needsDatabase() bool {
	_, isID := p.userID()
	return !isID || isPattern(p.Worker)
}

func (p Print) userID() (int32, bool) {
	id, err := strconv.ParseInt(p.User, 10, 32)
	return int32(id), err == nil && id >= 0
}

func isPattern(worker string) bool { return strings.ContainsAny(worker, "*?") }

// filter is what Print says, ready for use.
type filter struct {
	user     int32
	workers  map[int64]bool // nil: all
	status   []func(share.Status) bool
	from, to moment
}

func (f *filter) lets(day sharefile.Day, s *share.Share) bool {
	return (f.user == 0 || s.UserID == f.user) && (f.workers == nil || f.workers[s.WorkerID]) && f.letsStatus(s.Status) &&
		(!f.from.set || s.Time >= f.from.of(day)) && (!f.to.set || s.Time < f.to.of(day))
}

func (f *filter) letsStatus(status share.Status) bool {
	for _, lets := range f.status {
		if lets(status) {
			return true
		}
	}
	return f.status == nil
}

// parse reads all that needs no database.
func (p Print) parse() (f filter, err error) {
	var faults []error
	note := func(flag string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", flag, err))
		}
	}
	var errFrom, errTo, errStatus error
	f.from, errFrom = parseMoment(p.From)
	f.to, errTo = parseMoment(p.To)
	f.status, errStatus = parseStatus(p.Status)
	note("-from", errFrom)
	note("-to", errTo)
	note("-status", errStatus)
	if formats[p.Format] == nil && p.Format != "" {
		note("-format", fmt.Errorf("%q is none of %s", p.Format, formatNames()))
	}
	if number, ok := strings.CutPrefix(p.Worker, "id="); ok {
		id, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			note("-worker", fmt.Errorf("%q is no number", number))
		}
		f.workers = map[int64]bool{id: true}
	} else if p.Worker != "" && !isPattern(p.Worker) {
		f.workers = map[int64]bool{share.WorkerID(share.WorkerName(p.Worker)): true}
	}
	var isID bool
	if f.user, isID = p.userID(); !isID && strings.Trim(p.User, "-0123456789") == "" {
		note("-u", fmt.Errorf("%q is no user id", p.User))
	}
	return f, errors.Join(faults...)
}

// filter looks up the names that Print has.
func (s *Service) filter(ctx context.Context) (f filter, err error) {
	p := s.cfg.Print
	if f, err = p.parse(); err != nil || !p.needsDatabase() {
		return f, err
	}
	connect, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	db, err := store.Connect(connect, s.cfg.Database, s.log)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, isID := p.userID(); !isID {
		ids, err := db.UserIDs(ctx, p.User)
		switch {
		case err != nil:
			return f, err
		case len(ids) != 1:
			return f, fmt.Errorf("-u: the database knows %d users named %q %v; give an id", len(ids), p.User, ids)
		}
		f.user = ids[0]
	}
	if isPattern(p.Worker) {
		names, err := db.WorkerNames(ctx, f.user)
		if err != nil {
			return f, err
		}
		pattern := regexp.MustCompile("^" + strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(p.Worker)) + "$")
		f.workers = make(map[int64]bool)
		for id, name := range names {
			if pattern.MatchString(name) {
				f.workers[id] = true
			}
		}
		if len(f.workers) == 0 {
			return f, fmt.Errorf("-worker: the database knows no worker like %q", p.Worker)
		}
	}
	return f, nil
}

func parseStatus(text string) (all []func(share.Status) bool, err error) {
	if text == "" {
		return nil, nil
	}
	for word := range strings.SplitSeq(text, ",") {
		switch word {
		case "accepted":
			all = append(all, share.Status.IsAccepted)
		case "stale":
			all = append(all, share.Status.IsStale)
		case "rejected":
			all = append(all, func(s share.Status) bool { return !s.IsAccepted() && !s.IsStale() })
		default:
			number, err := strconv.ParseInt(word, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("%q is neither a number nor accepted, stale or rejected", word)
			}
			all = append(all, func(s share.Status) bool { return s == share.Status(number) })
		}
	}
	return all, nil
}

// moment is a time, or a time of each day.
type moment struct {
	set, ofDay bool
	seconds    int64
}

func parseMoment(text string) (moment, error) {
	if text == "" {
		return moment{}, nil
	}
	if text == "24:00" {
		return moment{set: true, ofDay: true, seconds: 86400}, nil
	}
	for _, layout := range []string{"15:04", time.TimeOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return moment{set: true, ofDay: true, seconds: int64(t.Hour()*3600 + t.Minute()*60 + t.Second())}, nil
		}
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return moment{}, fmt.Errorf("%q is no time like 2024-01-31T08:00:00Z, 08:00 or 08:00:30", text)
	}
	return moment{set: true, seconds: t.Unix()}, nil
}

// of is the moment in unix time.
func (m moment) of(day sharefile.Day) int64 {
	if m.ofDay {
		return day.Start().Unix() + m.seconds
	}
	return m.seconds
}
