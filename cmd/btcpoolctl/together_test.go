package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const payout = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"

// samples is a folder with the samples, each changed as said: pairs of what stands there and what is to.
func samples(t *testing.T, changes map[string][]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, program := range order {
		if program == "auxmaker" || program == "poolwatcher" || program == "switchapi" || program == "switcher" {
			continue
		}
		text, err := os.ReadFile(filepath.Join("..", "..", "configs", program+".toml"))
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, program, string(text), append([]string{`payout_address = ""`, `payout_address = "` + payout + `"`}, changes[program]...)...)
	}
	return dir
}

func write(t *testing.T, dir, name, text string, changes ...string) {
	t.Helper()
	changed := strings.NewReplacer(changes...).Replace(text)
	if len(changes) > 2 && changed == text {
		t.Fatalf("%s: none of %q", name, changes)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".toml"), []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSamplesFit has nothing to say of our own samples but what an operator has to fill in.
func TestSamplesFit(t *testing.T) {
	t.Parallel()
	p, err := openPool(samples(t, nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range p.faults() {
		t.Error(f)
	}
	if len(p.parts) != 7 {
		t.Errorf("%d parts", len(p.parts))
	}
}

func TestTogether(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		changes map[string][]string
		more    map[string][]string // other files of a program, by name
		want    string
	}{
		"a file by itself": {
			map[string][]string{"slparser": {`network = "mainnet"`, `network = "moonnet"`}}, nil, `slparser: network = "moonnet"`,
		},
		"networks": {
			map[string][]string{"slparser": {`network = "mainnet"`, `network = "signet"`}},
			nil,
			`network: is "mainnet" in gbtmaker, jobmaker, blkmaker, statshttpd, but "signet" in slparser`,
		},
		"brokers": {
			map[string][]string{"blkmaker": {`brokers = ["127.0.0.1:9092"]`, `brokers = ["kafka:9092"]`}}, nil, "but [kafka:9092] in blkmaker",
		},
		"topics": {
			map[string][]string{"sharelogger": {`share = "BtcShare"`, `share = "Shares"`}}, nil, `kafka.topics.share: is "BtcShare" in `,
		},
		"databases": {
			map[string][]string{"statshttpd": {`127.0.0.1:3306)/btcpool"`, `127.0.0.1:3306)/stats"`}}, nil, "but 127.0.0.1:3306/stats in statshttpd",
		},
		"share logs": {
			map[string][]string{"slparser": {`data_dir = "/var/lib/btcpool/sharelogger"`, `data_dir = "/srv/shares"`}},
			nil,
			"data_dir and chain: is /var/lib/btcpool/sharelogger of BTC in sharelogger, but /srv/shares of BTC in slparser",
		},
		"folders": {
			map[string][]string{"blkmaker": {`data_dir = "/var/lib/btcpool/blkmaker"`, `data_dir = "/var/lib/btcpool/sserver/"`}},
			nil,
			`blkmaker: data_dir = "/var/lib/btcpool/sserver" is that of sserver`,
		},
		"addresses": {
			map[string][]string{"slparser": {`admin = "127.0.0.1:9106"`, `admin = ":9105"`}}, nil, `slparser: admin = ":9105" is taken by admin of sharelogger`,
		},
		"server ids": {
			nil, map[string][]string{"sserver-2": {`data_dir = "/var/lib/btcpool/sserver"`, `data_dir = "/srv/2"`}}, "sserver-2: server_id = 1 is that of sserver",
		},
		"solved shares": {
			map[string][]string{"blkmaker": {`listen = ""`, `listen = "127.0.0.1:8300"`, `# token_file = "/etc/btcpool/handover.token"`, `token_file = "/etc/btcpool/handover.token"`}},
			nil,
			`sserver: handover.urls does not name blkmaker`,
		},
		"nodes": {
			map[string][]string{"blkmaker": {`rpc_url = "http://127.0.0.1:8332"`, `rpc_url = "http://10.0.0.9:8332"`}},
			nil,
			"blkmaker: nodes: http://127.0.0.1:8332, which makes templates, is not among them",
		},
		"counting": {
			map[string][]string{"statshttpd": {`accept_stale = false`, `accept_stale = true`}}, nil, "accept_stale and single_user_puid: is ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := samples(t, tc.changes)
			for other, changes := range tc.more {
				text, err := os.ReadFile(filepath.Join(dir, programOf(other)+".toml"))
				if err != nil {
					t.Fatal(err)
				}
				write(t, dir, other, string(text), changes...)
			}
			p, err := openPool(dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			var said []string
			for _, f := range p.faults() {
				said = append(said, f.String())
			}
			if all := strings.Join(said, "\n"); !strings.Contains(all, tc.want) {
				t.Errorf("found\n%s\nwant %s", all, tc.want)
			}
		})
	}
}

// TestVariables is not parallel: variables are the process's.
func TestVariables(t *testing.T) {
	dir := samples(t, nil)
	text := "# of the unit\nBTCPOOL_ADMIN=\"127.0.0.1:9999\"\n"
	if err := os.WriteFile(filepath.Join(dir, "slparser.env"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := openPool(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range p.parts {
		if got := part.config.Base().Admin; (got == "127.0.0.1:9999") != (part.program == "slparser") {
			t.Errorf("%s: admin = %q", part.name, got)
		}
	}
}

func TestProgramOf(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"sserver": "sserver", "sserver-2": "sserver", "sserver.eu": "sserver", "sserver2": "", "btcpool": "", "agentproxy": "", "jobmaker@b": "jobmaker",
	} {
		if got := programOf(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestCollide(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"127.0.0.1:1", "127.0.0.1:1", true},
		{":1", "127.0.0.1:1", true},
		{"[::]:1", "127.0.0.1:1", true},
		{"127.0.0.1:1", "127.0.0.2:1", false},
		{"127.0.0.1:0", "127.0.0.1:0", false},
		{"", "", false},
		{"host:1", "other:1", false},
		{"unix:/run/a", "unix:/run/a", true},
	} {
		if got := collide(tc.a, tc.b); got != tc.want {
			t.Errorf("%q and %q: %v", tc.a, tc.b, got)
		}
	}
}
