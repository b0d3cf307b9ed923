package notify

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Event is what may be told.
type Event string

// The events, as they are configured and as a message's type says them.
const (
	BlockFound     Event = "block_found"
	WorkerSilent   Event = "worker_silent"
	HashrateFallen Event = "hashrate_fallen"
	RejectsHigh    Event = "rejects_high"

	testEvent Event = "test"
)

// Events are all that may be chosen.
var Events = []Event{BlockFound, WorkerSilent, HashrateFallen, RejectsHigh}

// The states of an item that is no block.
const (
	raised  = "raised"
	cleared = "cleared"
)

const (
	mostItems = 20  // of a message
	mostName  = 48  // characters of a name in a text
	mostField = 255 // characters of a name in JSON
)

// Message is what is told at once. Its JSON is the webhook's body.
type Message struct {
	ID   string    `json:"id"` // the same for every try
	Type Event     `json:"type"`
	Time time.Time `json:"timestamp"`
	Pool string    `json:"pool,omitempty"`
	// Count is how many items there are, LeftOut how many of them are not in Items.
	Count   int    `json:"count"`
	LeftOut int    `json:"left_out"`
	Items   []Item `json:"items"`
	// Raised and Cleared are how many of all items are so.
	Raised  int `json:"raised"`
	Cleared int `json:"cleared"`
}

// Item is one thing that a message is about.
type Item struct {
	// State is raised or cleared; of a block its state: accepted, confirmed, orphaned or rejected.
	State string `json:"state"`
	// New is set for a block that nothing was told of before.
	New    bool       `json:"new,omitempty"`
	User   string     `json:"user,omitempty"`
	Worker string     `json:"worker,omitempty"`
	Since  *time.Time `json:"since,omitempty"` // since when it is so

	LastShare    *time.Time `json:"last_share,omitempty"`
	Hashrate     *float64   `json:"hashrate,omitempty"`      // hashes a second, of a quarter of an hour
	MeanHashrate *float64   `json:"mean_hashrate,omitempty"` // from which it fell
	Shares       *uint64    `json:"shares,omitempty"`        // of a quarter of an hour
	Refused      *uint64    `json:"refused,omitempty"`       // of them

	Height    *int32     `json:"height,omitempty"`
	Hash      string     `json:"hash,omitempty"`
	RewardSat *int64     `json:"reward_sat,omitempty"`
	RewardBTC string     `json:"reward_btc,omitempty"`
	FoundAt   *time.Time `json:"found_at,omitempty"`
}

func newMessage(e Event, now time.Time) *Message {
	return &Message{ID: "msg_" + rand.Text(), Type: e, Time: now.UTC().Truncate(time.Second), Items: []Item{}}
}

func (m *Message) add(i Item) {
	m.Count++
	switch i.State {
	case raised:
		m.Raised++
	case cleared:
		m.Cleared++
	}
	if len(m.Items) == mostItems {
		m.LeftOut++
		return
	}
	m.Items = append(m.Items, i)
}

func (c *condition) item() Item {
	i := Item{State: cleared, User: field(c.User), Worker: field(c.Worker), Since: moment(c.Since)}
	if c.Raised {
		i.State = raised
	}
	switch c.Event {
	case WorkerSilent:
		i.LastShare = moment(c.Last)
	case HashrateFallen:
		i.Hashrate, i.MeanHashrate = new(c.Rate), new(c.Base)
	case RejectsHigh:
		i.Shares, i.Refused = new(c.Shares), new(c.Refused)
	}
	return i
}

func (b *knownBlock) item(first bool) Item {
	return Item{
		State: b.State, New: first, User: field(b.User), Worker: field(b.Worker), Height: new(b.Height), Hash: b.Hash,
		RewardSat: new(b.RewardSat), RewardBTC: bitcoins(b.RewardSat), FoundAt: new(b.Time.UTC()),
	}
}

func moment(unix int64) *time.Time { return new(time.Unix(unix, 0).UTC()) }

// bitcoins is an amount of satoshi as people read it: 3.125 BTC, exactly.
func bitcoins(sat int64) string {
	text := fmt.Sprintf("%d.%08d", sat/1e8, sat%1e8)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

// Title is a line that says what the message is about.
func (m *Message) Title() string {
	title := m.title()
	if m.Pool != "" {
		title = m.Pool + ": " + title
	}
	return title
}

func (m *Message) title() string {
	switch {
	case m.Type == testEvent:
		return "test message"
	case m.Count == 1:
		return m.Items[0].line(m.Type)
	case m.Type == BlockFound:
		return fmt.Sprintf("news of %d blocks", m.Count)
	}
	var parts []string
	count := func(n int, bad string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf(bad, n))
		}
	}
	switch m.Type {
	case WorkerSilent:
		count(m.Raised, "%d silent")
		count(m.Cleared, "%d working again")
		return "workers: " + strings.Join(parts, ", ")
	case HashrateFallen:
		count(m.Raised, "%d fallen")
		count(m.Cleared, "%d back")
		return "hashrates: " + strings.Join(parts, ", ")
	}
	count(m.Raised, "%d high")
	count(m.Cleared, "%d normal again")
	return "rejects: " + strings.Join(parts, ", ")
}

// Text is the message for people, plain: names have no line breaks, control characters or changes of direction.
func (m *Message) Text() string {
	if m.Type == testEvent {
		return "This is how the pool would tell you. Sent at " + m.Time.Format(time.RFC3339) + "."
	}
	var b strings.Builder
	for _, i := range m.Items {
		b.WriteString(i.line(m.Type))
		b.WriteString(i.details(m.Type))
		b.WriteByte('\n')
	}
	if m.LeftOut > 0 {
		fmt.Fprintf(&b, "and %d more\n", m.LeftOut)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// who names a worker, a user or the pool.
func (i *Item) who() string {
	switch {
	case i.User == "" && i.Worker == "":
		return "the pool"
	case i.Worker == "":
		return clean(i.User)
	}
	return clean(i.User) + "." + clean(i.Worker)
}

func (i *Item) line(e Event) string {
	is := i.State == raised
	switch {
	case e == BlockFound:
		return i.blockLine()
	case e == WorkerSilent && is:
		return i.who() + " is silent"
	case e == WorkerSilent:
		return i.who() + " works again"
	case e == HashrateFallen && is:
		return "hashrate of " + i.who() + " has fallen to " + hashrate(i.Hashrate)
	case e == HashrateFallen:
		return "hashrate of " + i.who() + " is back at " + hashrate(i.Hashrate)
	case is:
		return "many shares of " + i.who() + " are refused: " + i.ratio()
	}
	return "shares of " + i.who() + " are accepted again: " + i.ratio() + " refused"
}

func (i *Item) blockLine() string {
	what := "block " + strconv.Itoa(int(deref(i.Height)))
	switch {
	case i.State == accepted:
		return what + " found by " + i.who()
	case i.New:
		return what + " found by " + i.who() + " and " + i.State
	}
	return what + " of " + i.who() + " is " + i.State
}

func (i *Item) details(e Event) string {
	const clock = "15:04 MST"
	switch {
	case e == BlockFound:
		return ": " + i.RewardBTC + " BTC, " + printable(i.Hash)
	case i.State != raised:
		return ""
	case e == WorkerSilent && i.LastShare != nil:
		return ", last share at " + i.LastShare.Format("2006-01-02 "+clock)
	case e == HashrateFallen:
		return ", the mean was " + hashrate(i.MeanHashrate)
	case e == RejectsHigh:
		return fmt.Sprintf(" (%d of %d in 15 minutes)", deref(i.Refused), deref(i.Shares))
	}
	return ""
}

func (i *Item) ratio() string {
	return fmt.Sprintf("%.1f %%", 100*float64(deref(i.Refused))/max(float64(deref(i.Shares)), 1))
}

func deref[V any](v *V) (is V) {
	if v != nil {
		is = *v
	}
	return is
}

func hashrate(rate *float64) string {
	value, unit := deref(rate), 0
	units := []string{"H/s", "kH/s", "MH/s", "GH/s", "TH/s", "PH/s", "EH/s", "ZH/s"}
	for value >= 1000 && unit < len(units)-1 {
		value /= 1000
		unit++
	}
	return strconv.FormatFloat(value, 'f', 1, 64) + " " + units[unit]
}

// clean is a name as it is put into a text.
func clean(name string) string { return cut(printable(name), mostName) }

// printable has a "?" for what is not to be seen, or changes how its neighbours are seen.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// field is a name as it is put into JSON.
func field(name string) string { return cut(strings.ToValidUTF8(name, "?"), mostField) }

// cut shortens text to that many characters.
func cut(text string, most int) string {
	n := 0
	for i := range text {
		if n == most {
			return text[:i] + "…"
		}
		n++
	}
	return text
}
