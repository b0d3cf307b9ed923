package agentproxy

import (
	"strings"
	"testing"
	"time"

	"btcpool/internal/config"
)

// configure has a machine ask for all version bits, and log in.
func (r *rig) configure(mask string) {
	r.t.Helper()
	r.say(`{"id":9,"method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":"ffffffff"}]}`)
	r.want(`{"id":9,"result":{"version-rolling":true,"version-rolling.mask":"`+mask+`"},"error":null}`,
		`{"id":null,"method":"mining.set_version_mask","params":["`+mask+`"]}`)
	r.login("a.rig1")
}

// A machine is told of version bits that it can keep wherever it may be moved to. One that does not heed what it is told
// gets to hear that from the answers to its shares, and is asked to connect again, when it hears of them at once.
func TestVersionMask(t *testing.T) {
	t.Parallel()
	first, second := newFakePool(t), newFakePool(t)
	s := proxyOf(t, func(c *Config) { c.ReturnInterval = config.Duration(time.Second) }, first, second)
	l := first.login()
	r := dial(t, s)
	r.configure("1fffe000")
	l.hear() // register
	l.conn.Close()
	first.accept().conn.Close()
	l = second.loginWith("00ffe000", "")
	l.hear() // register
	r.want(`{"id":null,"method":"mining.set_version_mask","params":["00ffe000"]}`)
	r.hear() // the job
	const (
		misrolled = `{"id":4,"method":"mining.submit","params":["a.b","1","00000001","65000000","b2957c02","1fffe000"]}`
		refused   = `{"id":4,"result":null,"error":[33,"Invalid version mask",null]}`
		reconnect = `{"id":null,"method":"client.reconnect","params":[]}`
	)
	r.say(strings.Repeat(misrolled+"\n", maxMisrolled-1) + misrolled)
	heard := make(map[string]int)
	for range maxMisrolled + 1 {
		heard[r.hear()]++
	}
	if heard[refused] != maxMisrolled || heard[reconnect] != 1 {
		t.Errorf("heard %v", heard)
	}
	for range 2 * maxMisrolled { // it has been asked
		r.say(misrolled)
		r.want(refused)
	}
	first.login().hear() // register
	r.hear()             // the job: its bits are the same as at the second pool
	r.conn.Close()
	dial(t, s).configure("00ffe000")
}

// A pool that lets nobody roll costs ASICBoost for as long as it is used.
func TestNoVersionRolling(t *testing.T) {
	t.Parallel()
	first, second := newFakePool(t), newFakePool(t)
	s := proxyOf(t, func(c *Config) { c.ReturnInterval = config.Duration(time.Second) }, first, second)
	first.accept().conn.Close()
	l := second.loginWith("00000000", "")
	r := dial(t, s)
	r.say(`{"id":9,"method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":"00ffe000"}]}`)
	r.want(`{"id":9,"result":{"version-rolling":false},"error":null}`, `{"id":null,"method":"mining.set_version_mask","params":["00000000"]}`)
	r.login("a.rig1")
	l.hear() // register
	first.login().hear()
	r.want(`{"id":null,"method":"mining.set_version_mask","params":["00ffe000"]}`)
	if line := r.hear(); !strings.Contains(line, "mining.notify") {
		t.Errorf("heard %s", line)
	}
}
