package agentproxy

import "btcpool/internal/agentwire"

// maxMiners is how many miners there are numbers for.
const maxMiners = int(agentwire.MaxSession) + 1

// numbers are what miners are told apart by on links: 0 to agentwire.MaxSession. One that was given back is given out
// again as late as possible, so that nobody is taken for whoever had it before. The zero value is ready.
type numbers struct {
	taken [(maxMiners + 63) / 64]uint64
	used  int
	next  int
}

// take returns a number that nobody has, if there is one.
func (n *numbers) take() (uint16, bool) {
	if n.used == maxMiners {
		return 0, false
	}
	for n.has(n.next) {
		n.next = (n.next + 1) % maxMiners
	}
	number := n.next
	n.claim(uint16(number))
	n.next = (number + 1) % maxMiners
	return uint16(number), true
}

// claim takes a number that somebody has already, and nobody here.
func (n *numbers) claim(number uint16) {
	n.taken[number/64] |= 1 << (number % 64)
	n.used++
}

func (n *numbers) has(number int) bool { return n.taken[number/64]>>(number%64)&1 != 0 }

// put gives a number back that was taken.
func (n *numbers) put(number uint16) {
	n.taken[number/64] &^= 1 << (number % 64)
	n.used--
}
