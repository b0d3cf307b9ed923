package agentproxy

import (
	"net/netip"
	"strconv"
	"strings"

	"btcpool/internal/share"
)

// name splits what a miner calls itself into account and worker, by BTCAgent's rules: the account is the part before
// the first dot; a worker without a name is called by all of it.
func (w Workers) name(login string, ip netip.Addr) (account, worker string) {
	login = share.CleanName(login)
	account, worker, _ = strings.Cut(login, ".")
	switch {
	case w.Fixed != "":
		worker = share.CleanName(w.Fixed)
	case w.ByIP:
		worker = share.CleanName(w.ofIP(ip))
	}
	if worker == "" {
		worker = login
	}
	return account, share.WorkerName(worker)
}

// ofIP names the worker at an address.
func (w Workers) ofIP(ip netip.Addr) string {
	bytes, base := ip.AsSlice(), 16
	if ip.Is4() {
		base = 10
	}
	name := w.IPFormat
	for i, b := range bytes[max(0, len(bytes)-4):] {
		name = strings.ReplaceAll(name, "{"+strconv.Itoa(i+1)+"}", strconv.FormatUint(uint64(b), base))
	}
	return name
}
