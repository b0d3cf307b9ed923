package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestSamplesFitTheUnit holds the shipped files against deploy/systemd, under which a service may write to
// /var/lib/btcpool/<service> only, and against each other.
func TestSamplesFitTheUnit(t *testing.T) {
	t.Parallel()
	dataDir, dsn := regexp.MustCompile(`(?m)^data_dir = "(.*?)"`), regexp.MustCompile(`(?m)^dsn = "(.*?)"`)
	databases := map[string]bool{}
	for _, service := range []string{"gbtmaker", "jobmaker", "sserver", "blkmaker", "sharelogger", "slparser", "statshttpd"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "configs", service+".toml"))
		if err != nil {
			t.Fatal(err)
		}
		owner := service
		if service == "slparser" {
			owner = "sharelogger" // whose files it reads
		}
		if dir := dataDir.FindSubmatch(text); dir != nil && string(dir[1]) != "/var/lib/btcpool/"+owner {
			t.Errorf("%s keeps its data in %s", service, dir[1])
		}
		if d := dsn.FindSubmatch(text); d != nil {
			databases[string(d[1])] = true
		}
	}
	if len(databases) != 1 {
		t.Errorf("the samples name several databases: %v", databases)
	}
}
