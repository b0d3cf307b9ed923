package statshttpd

import (
	"container/list"
	"net/netip"

	"btcpool/internal/guard"
)

// lobby holds the workers that have not had a share, by the address that they came from, in the order in which they
// came. A login costs nothing, so who brings many must not take the places of others: when it is full, the oldest of the
// address with the most are given up.
type lobby struct {
	from map[netip.Prefix]*list.List // of workerKey, the oldest first
	size int
}

// place is a worker's in the lobby.
type place struct {
	host    netip.Prefix
	element *list.Element
}

func newLobby() lobby { return lobby{from: make(map[netip.Prefix]*list.List)} }

func (l *lobby) add(k workerKey, ip netip.Addr) *place {
	host := guard.Host(ip)
	if l.from[host] == nil {
		l.from[host] = list.New()
	}
	l.size++
	return &place{host, l.from[host].PushBack(k)}
}

func (l *lobby) remove(p *place) {
	crowd := l.from[p.host]
	crowd.Remove(p.element)
	l.size--
	if crowd.Len() == 0 {
		delete(l.from, p.host)
	}
}

// surplus returns the n oldest of the address with the most, or fewer if another one would have the most then.
func (l *lobby) surplus(n int) (keys []workerKey) {
	var most *list.List
	second := 0
	for _, crowd := range l.from {
		switch {
		case most == nil || crowd.Len() > most.Len():
			if most != nil {
				second = most.Len()
			}
			most = crowd
		case crowd.Len() > second:
			second = crowd.Len()
		}
	}
	if most == nil {
		return nil
	}
	n = min(n, max(most.Len()-second, 1))
	for e := most.Front(); e != nil && len(keys) < n; e = e.Next() {
		keys = append(keys, e.Value.(workerKey))
	}
	return keys
}
