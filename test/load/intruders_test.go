//go:build integration

package load

import (
	"bytes"
	"fmt"
	"math/rand/v2"

	"golang.org/x/sys/unix"
)

// hostile connections do one kind of harm, at a pace, and come back at once when they are cut off.
type hostile struct {
	*loop
	attack attack
	order  order
	conns  []intruder
	queue  []int // to be connected
	pace   pacer // of what the attack does
	dials  pacer
	turn   int
	damage
}

// damage is what hostile reports.
type damage struct {
	Connected int   // at present
	Dials     int64 // connections tried
	Cut       int64 // connections that the server ended
	Acts      int64 // what the attack is made of
	Answers   int64 // bytes
}

type intruder struct {
	fd     int
	up     bool
	acts   int
	leaves bool // after the answer
}

// attack is one kind of harm.
type attack struct {
	name string
	// part of the rate asked for at which it acts.
	part float64
	// act returns what connection i sends when it is its turn for the n-th time; nil: nothing.
	act func(i, n int) []byte
	// once: the connection ends with the answer, for the next.
	once bool
	// deaf connections never read.
	deaf bool
}

// attacks are the harm that sserver has to bear.
var attacks = []attack{
	{name: "half-open", act: func(int, int) []byte { return nil }},
	{name: "slow-loris", part: 2, act: func(i, n int) []byte {
		if n == 0 && i%2 == 0 { // half of them know the way in
			return fmt.Appendf(nil, `{"id":1,"method":"mining.subscribe","params":[]}`+"\n"+
				`{"id":2,"method":"mining.authorize","params":["miner.slow%d","x"]}`+"\n", i)
		}
		const line = `{"id":3,"method":"mining.submit","params":["`
		return []byte{append([]byte(line), 'x')[min(n, len(line))]}
	}},
	{name: "garbage", part: 1, act: func(int, int) []byte {
		b := make([]byte, 64+rand.IntN(448))
		for i := range b {
			b[i] = byte(rand.Uint32())
		}
		return b
	}},
	{name: "login flood", part: 1, once: true, act: func(i, n int) []byte {
		names := []string{"nobody.%d", "", ".%d", `\u0000\n%d`, string(bytes.Repeat([]byte{'n'}, 3000)) + "%d", "miner'; DROP TABLE users;--%d"}
		name := names[(i+n)%len(names)]
		if len(name) > 0 {
			name = fmt.Sprintf(name, rand.Uint32())
		}
		return fmt.Appendf(nil, `{"id":1,"method":"mining.subscribe","params":[]}`+"\n"+
			`{"id":2,"method":"mining.authorize","params":["%s","x"]}`+"\n", name)
	}},
	{name: "huge lines", part: 1, act: func(int, int) []byte { return bytes.Repeat([]byte{'['}, 4<<10) }},
	{name: "slow readers", part: .05, deaf: true, act: func(i, n int) []byte {
		var b []byte
		if n == 0 {
			b = fmt.Appendf(b, `{"id":1,"method":"mining.subscribe","params":[]}`+"\n"+
				`{"id":2,"method":"mining.authorize","params":["miner.deaf%d","x"]}`+"\n", i)
		}
		for range 16 {
			b = fmt.Appendf(b, `{"id":3,"method":"mining.submit","params":["miner.deaf%d","0","%016x","00000000","%08x"]}`+"\n", i, i, rand.Uint32())
		}
		return b
	}},
}

func newHostile(l *loop) *hostile { return &hostile{loop: l} }

func (h *hostile) obey(o order) (any, error) {
	now := monotonic()
	switch o.Do {
	case "attack":
		h.order = o
		for _, a := range attacks {
			if a.name == o.Kind {
				h.attack = a
			}
		}
		for len(h.conns) < o.Connections {
			h.queue = append(h.queue, len(h.conns))
			h.conns = append(h.conns, intruder{fd: -1})
		}
		h.pace.set(o.Rate*h.attack.part, now)
		h.dials.set(o.Rate, now)
	case "leave":
		h.queue, h.damage = nil, damage{}
		h.pace.set(0, now)
		for i := range h.conns {
			h.hangUp(i)
		}
		h.conns = nil
	}
	return h.damage, nil
}

func (h *hostile) tick(now int64) error {
	for len(h.queue) > 0 && h.dials.due(now) {
		i := h.queue[0]
		h.queue = h.queue[1:]
		buffer := 0
		if h.attack.deaf {
			buffer = 1 // the kernel makes it its least
		}
		fd, err := dial(h.order.Network, i%h.order.Sources, h.order.Addr, buffer)
		if err != nil {
			return err
		}
		h.Dials++
		h.conns[i] = intruder{fd: fd}
		if err := h.watch(fd, i, unix.EPOLLOUT); err != nil {
			return err
		}
	}
	for len(h.conns) > 0 && h.pace.due(now) {
		for range h.conns {
			h.turn = (h.turn + 1) % len(h.conns)
			if h.act(h.turn) {
				break
			}
		}
	}
	return nil
}

// act does harm by connection i, if that can be.
func (h *hostile) act(i int) bool {
	c := &h.conns[i]
	if !c.up || c.leaves {
		return false
	}
	b := h.attack.act(i, c.acts)
	c.acts++
	h.Acts++
	c.leaves = h.attack.once
	if _, err := write(c.fd, b); err != nil {
		h.cut(i)
	}
	return true
}

func (h *hostile) ready(i int, events uint32) error {
	if i >= len(h.conns) || h.conns[i].fd < 0 {
		return nil
	}
	c := &h.conns[i]
	switch {
	case !c.up && events&(unix.EPOLLERR|unix.EPOLLHUP) != 0:
		h.cut(i)
	case !c.up:
		c.up = true
		h.Connected++
		wanted := uint32(unix.EPOLLIN)
		if h.attack.deaf {
			wanted = unix.EPOLLRDHUP
		}
		return h.watch(c.fd, i, wanted)
	case h.attack.deaf:
		h.cut(i)
	default:
		in, err := h.read(c.fd)
		h.Answers += int64(len(in))
		if err != nil {
			h.cut(i)
		} else if c.leaves && bytes.Contains(in, []byte(`"id":2`)) {
			h.hangUp(i)
			h.queue = append(h.queue, i)
		}
	}
	return nil
}

// cut is what the server did to connection i.
func (h *hostile) cut(i int) {
	h.Cut++
	h.hangUp(i)
	h.queue = append(h.queue, i)
}

// hangUp resets connection i: a host that attacks wants no port to wait.
func (h *hostile) hangUp(i int) {
	c := &h.conns[i]
	if c.fd < 0 {
		return
	}
	_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.Close(c.fd)
	if c.up {
		h.Connected--
	}
	*c = intruder{fd: -1}
}
