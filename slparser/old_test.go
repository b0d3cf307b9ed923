package slparser_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/sealed"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/testkit"
	"btcpool/slparser"
)

var logBytes = regexp.MustCompile(` log_bytes=\S+`)

// TestOldFiles prints and computes a day as old btcpool wrote it, and sealed: the same comes out as of today's form. It is
// not parallel: it takes stdout.
func TestOldFiles(t *testing.T) {
	const date = sharefile.Day(20180115)
	var shares []share.Share
	for i, s := range day(500, date.Start()) {
		s.JobID, s.Height, s.SessionID, s.Nonce, s.Difficulty = uint64(date.Start().Unix())<<32|0xa1070000|uint64(i), 570000, 0, 0, 10
		if s.Status != share.StatusAccept {
			s.Status = share.StatusRejectNoReason
		}
		shares = append(shares, s)
	}
	today := testConfig(t)
	newShareLog(t, today.DataDir).write(t, shares...)
	read := func(cfg slparser.Config) (text string, rows []string) {
		text, stderr, code := printed(t, cfg, "-d", "20180115", "-u", "0")
		if code != 0 {
			t.Fatal(stderr)
		}
		if code := service.Main("slparser", []string{"-d", "20180115"}, t.Output(), cfg, slparser.New); code != 0 {
			t.Fatalf("computing: code %d", code)
		}
		return text, strings.Split(logBytes.ReplaceAllString(strings.Join(dump(t, cfg), "\n"), ""), "\n")
	}
	wantText, wantRows := read(today)
	if strings.Count(wantText, "\n") != len(shares) || len(wantRows) == 0 {
		t.Fatalf("%d rows, printed:\n%s", len(wantRows), wantText)
	}
	for _, size := range []int{share.SizeV1, share.SizeV2} {
		var file []byte
		for _, s := range shares {
			file = append(file, testkit.OldShare(s, size)...)
		}
		cfg := testConfig(t)
		if err := os.WriteFile(sharefile.Path(cfg.DataDir, cfg.Chain, date), file, 0o600); err != nil {
			t.Fatal(err)
		}
		text, rows := read(cfg)
		if diff := cmp.Diff(wantRows, rows); diff != "" || text != wantText {
			t.Errorf("%d bytes: the same text: %t (-want +got):\n%s", size, text == wantText, diff)
		}
		if _, err := sealed.Seal(t.Context(), cfg.DataDir, cfg.Chain, date); err != nil {
			t.Fatal(err)
		}
		if v, err := sealed.Verify(t.Context(), cfg.DataDir, cfg.Chain, date); err != nil || !v.Source || v.Footer.Records != int64(len(shares)) {
			t.Errorf("%d bytes: sealed: %+v, %v", size, v, err)
		}
		if err := os.Remove(sharefile.Path(cfg.DataDir, cfg.Chain, date)); err != nil {
			t.Fatal(err)
		}
		if _, rows = read(cfg); cmp.Diff(wantRows, rows) != "" {
			t.Errorf("%d bytes, sealed (-want +got):\n%s", size, cmp.Diff(wantRows, rows))
		}
	}
}
