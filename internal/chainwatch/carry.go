package chainwatch

import (
	"time"

	"btcpool/internal/upgrade"
	"btcpool/internal/userchain"
)

// Memory is what is known of a user, on its way to another process.
type Memory struct {
	User    string
	Answer  Answer
	Mined   string
	Written int64
	Read    time.Time
}

const (
	maxName = 1 << 10
	maxText = 64 << 10
)

// Code is for a Memory of the same ZooKeeper.
func (m *Memory) Code(c *upgrade.Codec) {
	c.Text(&m.User, maxName)
	if c.Reading() && userchain.CheckUser(m.User) != nil {
		c.Fail("user %.40q", m.User)
	}
	if c.Bool(&m.Answer.Known); m.Answer.Known {
		text := m.Answer.Value.JSON()
		if c.Data(&text, maxText); c.Reading() && c.Err() == nil {
			var err error
			if m.Answer.Value, err = userchain.ParseValue(text); err != nil {
				c.Fail("node of %.40q: %v", m.User, err)
			}
		}
	}
	c.Text(&m.Mined, maxName)
	upgrade.Int(c, &m.Written)
	c.Time(&m.Read)
}

// Memories returns what is known of the users whose nodes were found to have changed since LeaveFile, in no order.
func (w *Watcher) Memories() (all []Memory) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for u := range w.since {
		all = append(all, Memory{u.name, u.answer, u.mined, u.written, u.read})
	}
	return all
}

// Remember takes over what another Watcher knew. It has to be called before Use and its like: who is in use is read then,
// and told of if the node has changed since.
func (w *Watcher) Remember(all []Memory) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range all {
		u := w.get(m.User)
		u.answer, u.mined, u.written, u.read = m.Answer, m.Mined, m.Written, m.Read
	}
	w.changed = w.changed || len(all) > 0
}
