package statshttpd

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
)

// Who asks for a page of workers or users gets it from an order that is kept between requests: to sort all of them
// takes long. Only which ones are on a page is as old as the order, their figures are not.
const (
	orderFresh = 2 * time.Second        // so long an order is not made again
	orderStale = 15 * time.Second       // so long it answers while it is made again
	orderCheap = time.Millisecond       // what took less than this is made again before it answers
	cheapFresh = 200 * time.Millisecond // and is fresh for this time
	mostOrders = 32                     // from so many on, those that are stale are forgotten
	orderChunk = 2000                   // so many are looked at under the board's lock at once
)

// order is some rows in an order of theirs.
type order[R any] struct {
	rows  []R
	brief []brief       // of each row: what most pages select by
	texts string        // of all rows, a line each
	by    []int32       // places in rows; nil: as they are
	at    time.Time     // by the clock of the answers
	took  time.Duration // to make
}

// brief is what a page selects rows by, close together: to look at all rows themselves takes long.
type brief struct {
	user  int32
	end   int32 // of its line in texts
	state state
}

// text is the line of row i.
func (o *order[R]) text(i int) string {
	from := int32(0)
	if i > 0 {
		from = o.brief[i-1].end + 1
	}
	return o.texts[from:o.brief[i].end]
}

// found tells of each row whether its text contains what is searched, which is in lower case; nil: all do.
func (o *order[R]) found(search string) []bool {
	if search == "" {
		return nil
	}
	found := make([]bool, len(o.rows))
	for from := 0; from < len(o.texts); {
		at := strings.Index(o.texts[from:], search)
		if at < 0 {
			break
		}
		i, _ := slices.BinarySearchFunc(o.brief, int32(from+at), func(b brief, at int32) int { return cmp.Compare(b.end, at) })
		found[i] = true
		from = int(o.brief[i].end) + 1
	}
	return found
}

// line makes a text one that found can search.
func line(texts ...string) string {
	return strings.ToLower(strings.ReplaceAll(strings.Join(texts, " "), "\n", " "))
}

// orders keeps orders by name. It is safe for concurrent use.
type orders[R any] struct {
	mu     sync.Mutex
	kept   map[string]*order[R]
	making map[string]chan struct{} // closed when that order is made
	work   sync.WaitGroup           // in the background
}

func newOrders[R any]() *orders[R] {
	return &orders[R]{kept: make(map[string]*order[R]), making: make(map[string]chan struct{})}
}

// get returns the order of that name, made by how, nil at first.
func (o *orders[R]) get(name string, now time.Time, how func(old *order[R]) *order[R]) *order[R] {
	for {
		o.mu.Lock()
		old, making := o.kept[name], o.making[name]
		fresh, stale := false, false
		if old != nil {
			age := now.Sub(old.at)
			cheap := old.took < orderCheap
			fresh = age >= 0 && (age < cheapFresh || age < orderFresh && !cheap)
			stale = age >= 0 && age < orderStale && !cheap
		}
		switch {
		case fresh || stale && making != nil:
			o.mu.Unlock()
			return old
		case making != nil:
			o.mu.Unlock()
			<-making
			continue
		}
		making = make(chan struct{})
		o.making[name] = making
		o.work.Add(1)
		o.mu.Unlock()
		renew := func() {
			defer o.work.Done()
			begin := time.Now()
			next := how(old)
			next.at, next.took = now, time.Since(begin)
			o.mu.Lock()
			if len(o.kept) >= mostOrders {
				o.forget(now)
			}
			o.kept[name] = next
			delete(o.making, name)
			o.mu.Unlock()
			close(making)
		}
		if stale {
			go renew()
			return old
		}
		renew()
	}
}

// forget makes room for orders that are asked for. o.mu is held.
func (o *orders[R]) forget(now time.Time) {
	for name, old := range o.kept {
		if now.Sub(old.at) >= orderStale || len(o.kept) >= 2*mostOrders {
			delete(o.kept, name)
		}
	}
}

// wait returns once nothing is made in the background any more.
func (o *orders[R]) wait() error {
	o.work.Wait()
	return nil
}

// rank is what windows are ordered by.
type rank func(b *board, w *window, now int64) float64

// ranks are the values of sort that both workers and users have, beside their name; "-" before one turns it round.
var ranks = map[string]rank{
	"hashrate_1m":  func(_ *board, w *window, now int64) float64 { return w.rate(now, minute).HashesPerSecond },
	"hashrate_5m":  func(_ *board, w *window, now int64) float64 { return w.rate(now, fiveMinutes).HashesPerSecond },
	"hashrate_15m": func(_ *board, w *window, now int64) float64 { return w.rate(now, quarterHour).HashesPerSecond },
	"hashrate_1h":  func(_ *board, w *window, now int64) float64 { return w.rate(now, hour).HashesPerSecond },
	"hashrate_1d":  func(b *board, w *window, now int64) float64 { return w.dayRate(now, b.dayEnd).HashesPerSecond },
	"last_share":   func(_ *board, w *window, _ int64) float64 { return float64(w.last) },
	"best_share":   func(_ *board, w *window, _ int64) float64 { return w.best.difficulty() },
	"reject_ratio": func(_ *board, w *window, now int64) float64 { return w.rejectRatio(now) },
}

// listed is a worker in a list.
type listed struct {
	workerKey
	w          *worker
	user, name string
	text       string // "user.worker agent proxy": what is searched
	renamed    uint32 // the worker's when text was made
	state      state
}

// state tells what a worker is doing.
type state uint8

const (
	isOnline state = 1 << iota
	isActive       // had a share, or came, in the last hour
	isWaiting
	isSilent // known, and not online; not one that waits
)

func (w *worker) state(now time.Time) (s state) {
	online := w.online(now)
	if online {
		s |= isOnline
	}
	if !w.silentSince(now.Unix() - int64(hour)) {
		s |= isActive
	}
	switch {
	case w.waits != nil:
		s |= isWaiting
	case !online:
		s |= isSilent
	}
	return s
}

// list returns all workers, ordered by name, with addresses as they are shown. old is what it returned before.
func (b *board) list(now time.Time, shown Addresses, old []listed) []listed {
	b.mu.RLock()
	all := make([]listed, 0, len(b.workers)+orderChunk) // no more than come meanwhile
	b.mu.RUnlock()
	for chunk := range slices.Chunk(old, orderChunk) { // which are in order nearly always
		b.mu.RLock()
		for i := range chunk {
			l := chunk[i]
			if b.workers[l.workerKey] == l.w {
				all = append(all, b.listed(now, shown, l))
			}
		}
		b.mu.RUnlock()
	}
	b.mu.RLock()
	if len(b.workers) > len(all) {
		known := make(map[workerKey]bool, len(all))
		for i := range all {
			known[all[i].workerKey] = true
		}
		for k, w := range b.workers {
			if !known[k] {
				all = append(all, b.listed(now, shown, listed{workerKey: k, w: w}))
			}
		}
	}
	b.mu.RUnlock()
	slices.SortFunc(all, func(x, y listed) int {
		return cmp.Or(strings.Compare(x.user, y.user), strings.Compare(x.name, y.name),
			cmp.Compare(x.UserID, y.UserID), cmp.Compare(x.WorkerID, y.WorkerID))
	})
	return all
}

// listed brings l up to date. b.mu is held.
func (b *board) listed(now time.Time, shown Addresses, l listed) listed {
	user := b.users[l.UserID].Name
	if l.text == "" || l.user != user || l.renamed != l.w.renamed {
		l.user, l.name, l.renamed = user, l.w.Name, l.w.renamed
		l.text = line(l.user+"."+l.name, l.w.Agent, shown.show(l.w.through.Proxy))
	}
	l.state = l.w.state(now)
	return l
}

// sorted orders n rows by what of returns, the largest first with down, equal ones as they are. of is called with b.mu
// held.
func (b *board) sorted(n int, down bool, of func(i int) float64) []int32 {
	values := make([]float64, n)
	by := make([]int32, n)
	for i := range by {
		by[i] = int32(i)
	}
	for chunk := range slices.Chunk(by, orderChunk) {
		b.mu.RLock()
		for _, i := range chunk {
			if values[i] = of(int(i)); down {
				values[i] = -values[i]
			}
		}
		b.mu.RUnlock()
	}
	slices.SortFunc(by, func(x, y int32) int { return cmp.Or(cmp.Compare(values[x], values[y]), cmp.Compare(x, y)) })
	return by
}

// backwards is the order of n rows from the end.
func backwards(n int) []int32 {
	by := make([]int32, n)
	for i := range by {
		by[i] = int32(n - 1 - i)
	}
	return by
}

// workers returns all workers in the order that sort names.
func (s *Service) workers(now time.Time, sort string) *order[listed] {
	names := s.workerOrders.get("name", now, func(old *order[listed]) *order[listed] {
		if old == nil {
			old = &order[listed]{}
		}
		next := &order[listed]{rows: s.board.list(now, s.cfg.Addresses, old.rows)}
		next.index(func(l *listed) (string, brief) { return l.text, brief{user: l.UserID, state: l.state} })
		for i := range next.rows { // so that texts are in memory once
			next.rows[i].text = next.text(i)
		}
		return next
	})
	return arranged(s.workerOrders, names, now, sort, func(by string, down bool) []int32 {
		return s.board.sorted(len(names.rows), down, func(i int) float64 {
			return ranks[by](s.board, &names.rows[i].w.window, now.Unix())
		})
	})
}

// index makes brief and texts of rows.
func (o *order[R]) index(of func(*R) (text string, b brief)) {
	var texts strings.Builder
	o.brief = make([]brief, len(o.rows))
	for i := range o.rows {
		text, b := of(&o.rows[i])
		texts.WriteString(text)
		b.end = int32(min(texts.Len(), math.MaxInt32))
		texts.WriteByte('\n')
		o.brief[i] = b
	}
	o.texts = texts.String()
}

// arranged returns the rows of names, which are in that order, in the order that sort names; how makes it of a rank.
func arranged[R any](kept *orders[R], names *order[R], now time.Time, sort string, how func(by string, down bool) []int32) *order[R] {
	if sort == "name" {
		return names
	}
	return kept.get(sort, now, func(*order[R]) *order[R] {
		by, down := strings.CutPrefix(sort, "-")
		if by == "name" {
			return names.arrangedBy(backwards(len(names.rows)))
		}
		return names.arrangedBy(how(by, down))
	})
}

func (o *order[R]) arrangedBy(by []int32) *order[R] {
	return &order[R]{rows: o.rows, brief: o.brief, texts: o.texts, by: by}
}

// page returns those from offset on, limit at most, of the rows that keep keeps and that contain what is searched, and how
// many these are.
func (o *order[R]) page(keep func(*R, brief) bool, search string, limit, offset int) (page []*R, total int) {
	found := o.found(search)
	for i := range o.rows {
		if o.by != nil {
			i = int(o.by[i])
		}
		if found != nil && !found[i] || !keep(&o.rows[i], o.brief[i]) {
			continue
		}
		if total >= offset && len(page) < limit {
			page = append(page, &o.rows[i])
		}
		total++
	}
	return page, total
}

// workerPage returns a page of the workers that keep keeps and that contain what is searched, and how many there are on
// all pages.
func (s *Service) workerPage(now time.Time, sort string, keep func(*listed, brief) bool, search string, limit, offset int) (views []*workerView, total int) {
	page, total := s.workers(now, sort).page(keep, search, limit, offset)
	return s.board.views(now, page), total
}

// views are those of a page that have not gone since its order was made.
func (b *board) views(now time.Time, page []*listed) (views []*workerView) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, l := range page {
		if b.workers[l.workerKey] == l.w {
			views = append(views, b.view(l.workerKey, l.w, now))
		}
	}
	return views
}
