package sharelogger_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/config"
	"btcpool/internal/sealed"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/testkit"
	"btcpool/sharelogger"
)

// age makes the files of all days as old as if nothing had come to them for a month.
func (p *pool) age(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.cfg.DataDir, "*.bin"))
	if err != nil || len(files) == 0 {
		t.Fatalf("files %v, %v", files, err)
	}
	old := time.Now().AddDate(0, -1, 0)
	for _, file := range files {
		if err := os.Chtimes(file, old, old); err != nil {
			t.Fatal(err)
		}
	}
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// TestSealDays has past days sealed, archived and, but for the newest, their files removed. A share that comes later
// than that is added to the sealed day.
func TestSealDays(t *testing.T) {
	t.Parallel()
	const days, removed = 6, 2
	p := newPool(t)
	_, stop := p.start(t)
	for i := range uint32(days) {
		p.writeTo(t, 0, newShare(i+1, monday+int64(i)*86400))
		testkit.Eventually(t, "the share", func() bool { return len(p.nonces(t)) == int(i+1) })
	}
	stop()

	p.age(t)
	p.cfg.Seal = sharelogger.SealConfig{After: config.Duration(time.Minute), RemoveSourceAfter: 1}
	p.cfg.Seal.Archive.Folder = t.TempDir()
	_, stop = p.start(t)
	first := sharefile.DayOf(monday)
	testkit.Eventually(t, "files of the oldest days removed", func() bool { return len(p.nonces(t)) == days-removed })
	for i := range int64(days) {
		day := sharefile.DayOf(monday + i*86400)
		name := sealed.Path(p.cfg.DataDir, "BTC", day)
		testkit.Eventually(t, "the archived day", func() bool {
			return exists(t, filepath.Join(p.cfg.Seal.Archive.Folder, "BTC", "2023", filepath.Base(name)))
		})
		if v, err := sealed.Verify(t.Context(), p.cfg.DataDir, "BTC", day); err != nil || v.Source == (i < removed) || v.Footer.Records != 1 {
			t.Errorf("day %d: source there: %t, %v", day, v.Source, err)
		}
	}
	p.writeTo(t, 0, newShare(days+1, monday))
	testkit.Eventually(t, "the late share", func() bool { return exists(t, sharefile.Path(p.cfg.DataDir, "BTC", first)) })
	stop()

	p.age(t)
	_, stop = p.start(t)
	testkit.Eventually(t, "its day sealed with it", func() bool {
		v, err := sealed.Verify(t.Context(), p.cfg.DataDir, "BTC", first)
		return err == nil && v.Footer.Records == 2
	})
	stop()
	// Only the sealed day has the first share now; nothing of the topic is taken again.
	_, stop = p.start(t)
	p.writeTo(t, 0, newShare(days+2, monday+days*86400))
	testkit.Eventually(t, "one more", func() bool { return len(p.nonces(t)) > days-removed })
	stop()
	for _, nonce := range p.nonces(t) {
		if nonce <= removed {
			t.Errorf("share %d is in the log again", nonce)
		}
	}
}

// TestSealDamaged wants a damaged day to be said, not sealed, and to keep nothing else from being sealed.
func TestSealDamaged(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	_, stop := p.start(t)
	for i := range uint32(20) {
		p.writeTo(t, 0, newShare(i+1, monday+int64(i/10)*86400))
		testkit.Eventually(t, "the share", func() bool { return len(p.nonces(t)) == int(i+1) })
	}
	stop()
	bad, good := sharefile.DayOf(monday), sharefile.DayOf(monday+86400)
	path := sharefile.Path(p.cfg.DataDir, "BTC", bad)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file[len(file)/2] ^= 1
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	p.age(t)
	p.cfg.Seal.After = config.Duration(time.Minute)
	_, stop = p.start(t)
	testkit.Eventually(t, "the sealed day", func() bool { return exists(t, sealed.Path(p.cfg.DataDir, "BTC", good)) })
	testkit.Eventually(t, "the damaged day", func() bool {
		return testkit.Metric(t, p.registry, "btcpool_sharelogger_days_unsealed") == 1
	})
	stop()
	if exists(t, sealed.Path(p.cfg.DataDir, "BTC", bad)) {
		t.Error("the damaged day is sealed")
	}
}

// TestSealCommands seals and verifies a day beside who writes.
func TestSealCommands(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	_, stop := p.start(t)
	defer stop()
	day := sharefile.DayOf(monday)
	var batch []share.Share
	for nonce := range uint32(10) {
		batch = append(batch, newShare(nonce+1, monday))
	}
	p.writeTo(t, 0, batch...)
	testkit.Eventually(t, "the shares", func() bool { return len(p.nonces(t)) == len(batch) })
	run := func(change func(*sharelogger.Config)) error {
		cfg := p.cfg
		change(&cfg)
		svc, err := sharelogger.New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: prometheus.NewRegistry()})
		if err != nil {
			return err
		}
		return svc.Run(t.Context())
	}
	verify := func() error { return run(func(c *sharelogger.Config) { c.VerifyDay = day }) }
	seal := func() error { return run(func(c *sharelogger.Config) { c.SealDay = day }) }
	if err := verify(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before it is sealed: %v", err)
	}
	if err := errors.Join(seal(), verify()); err != nil {
		t.Error(err)
	}
	p.writeTo(t, 0, newShare(11, monday))
	testkit.Eventually(t, "one more", func() bool { return len(p.nonces(t)) == len(batch)+1 })
	if err := verify(); !errors.Is(err, sealed.ErrDiffers) {
		t.Errorf("with a late share: %v", err)
	}
	if err := errors.Join(seal(), verify()); err != nil {
		t.Error(err)
	}
}
