package share_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp/cmpopts"

	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

var cmpAddr = cmpopts.EquateComparable(netip.Addr{})

// fullShare has every field set.
func fullShare() share.Share {
	return share.Share{
		ID:          share.ID{Server: 7, Epoch: 1700000000, Seq: 123456789},
		JobID:       0x6553f10000a10701,
		WorkerID:    -5764607523034234881,
		UserID:      42,
		ExtUserID:   4711,
		Status:      share.StatusAccept,
		Time:        1700000123,
		IP:          netip.MustParseAddr("203.0.113.9"),
		Difficulty:  14,
		Bits:        0x1704ed7f,
		Height:      816000,
		Nonce:       0xdeadbeef,
		SessionID:   0x0700002a,
		VersionBits: 0x1fffe000,
		BitsReached: 0x1a123456,
	}
}

func solved() share.Solved {
	s := share.Solved{
		JobID:      0x6553f10000a10701,
		WorkerID:   -5764607523034234881,
		UserID:     42,
		Height:     816000,
		WorkerName: "alice.rig-1",
		Coinbase:   []byte("\x02\x00\x00\x00 coinbase transaction"),
	}
	for i := range s.Header {
		s.Header[i] = byte(i)
	}
	return s
}

func event() share.Event {
	return share.Event{
		Time:       time.Date(2023, 11, 14, 22, 15, 23, 0, time.UTC),
		Action:     share.MinerConnect,
		UserID:     42,
		UserName:   "alice",
		WorkerID:   -5764607523034234881,
		WorkerName: "rig-1",
		Agent:      "cgminer/4.12 <\"quoted\">",
		IP:         netip.MustParseAddr("2001:db8::1"),
		SessionID:  0x0700002a,
		Desc:       "new_conn",
		ExtUserID:  4711,
	}
}

// checkGolden compares got with testdata/name, which holds hex in lines of 32 bytes.
func checkGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	var lines []byte
	for chunk := range slices.Chunk(got, 32) {
		lines = fmt.Appendf(lines, "%x\n", chunk)
	}
	testkit.Golden(t, name, lines)
}
