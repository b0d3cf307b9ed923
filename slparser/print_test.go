package slparser_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/store"
	"btcpool/slparser"
)

// printed is what a program prints to stdout that runs this configuration, and its exit code.
func printed(t *testing.T, cfg slparser.Config, args ...string) (out, log string, code int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan string)
	go func() {
		var all bytes.Buffer
		_, _ = all.ReadFrom(r)
		read <- all.String()
	}()
	stdout := os.Stdout
	os.Stdout = w
	var stderr bytes.Buffer
	code = service.Main("slparser", args, &stderr, cfg, slparser.New)
	os.Stdout = stdout
	w.Close()
	return <-read, stderr.String(), code
}

// TestPrint is not parallel: it takes stdout.
func TestPrint(t *testing.T) {
	cfg := testConfig(t)
	log := newShareLog(t, cfg.DataDir)
	day := sharefile.Day(20231120)
	at := func(s share.Share, clock string, status share.Status) share.Share {
		c, err := time.Parse(time.TimeOnly, clock)
		if err != nil {
			t.Fatal(err)
		}
		s.Time += int64(c.Hour()*3600 + c.Minute()*60 + c.Second())
		s.Status = status
		return s
	}
	rig, other := share.WorkerID("rig-1"), share.WorkerID("other")
	odd := at(newShare(2, -5, day.Start()), "12:00:00", 77)
	odd.IP, odd.JobID, odd.Difficulty, odd.Bits = netip.MustParseAddr("2001:db8::1"), 1<<64-1, -2, 0
	odd.Bits = 0x1d00ffff
	log.write(t,
		at(newShare(1, rig, day.Start()), "00:00:00", share.StatusAccept),
		at(newShare(1, other, day.Start()), "07:59:59", share.StatusDuplicate),
		at(newShare(2, rig, day.Start()), "08:00:00", share.StatusStale),
		odd,
	)
	log.write(t, at(newShare(1, rig, day.Next().Start()), "09:00:00", share.StatusAcceptStale))
	db := openStore(t, cfg)
	if _, err := db.UserID(t.Context(), "alice", true); err != nil { // the first: 1
		t.Fatal(err)
	}
	for id, name := range map[int64]string{rig: "rig-1", other: "other"} {
		if err := db.UpsertWorkerNames(t.Context(), []store.Worker{{UserID: 2, WorkerID: id, Name: name, UserName: "bob"}}); err != nil {
			t.Fatal(err)
		}
	}

	times := func(out string) string {
		var all []string
		for _, line := range regexp.MustCompile(`time=\S+`).FindAllString(out, -1) {
			all = append(all, strings.TrimSuffix(line[len("time=2023-11-"):], ":00Z"))
		}
		return strings.Join(all, " ")
	}
	const both = "20231120-20231121"
	for args, want := range map[string]string{
		"-d 20231120 -u 0":                                              "20T00:00 20T07:59:59Z 20T08:00 20T12:00",
		"-d " + both + " -u 0":                                          "20T00:00 20T07:59:59Z 20T08:00 20T12:00 21T09:00",
		"-d " + both + " -u 1":                                          "20T00:00 20T07:59:59Z 21T09:00",
		"-d " + both + " -u 3":                                          "",
		"-d " + both + " -u alice -from 07:59:59":                       "20T07:59:59Z 21T09:00",
		"-d " + both + " -u bob":                                        "20T08:00 20T12:00",
		"-d " + both + " -u 0 -worker rig-1":                            "20T00:00 20T08:00 21T09:00",
		"-d " + both + " -u 0 -worker id=-5":                            "20T12:00",
		"-d " + both + " -u 0 -worker r?g*":                             "20T00:00 20T08:00 21T09:00",
		"-d " + both + " -u 0 -worker *":                                "20T00:00 20T07:59:59Z 20T08:00 21T09:00", // whose names are known
		"-d " + both + " -u 0 -status accepted":                         "20T00:00 21T09:00",
		"-d " + both + " -u 0 -status stale,77":                         "20T08:00 20T12:00 21T09:00",
		"-d " + both + " -u 0 -status rejected":                         "20T07:59:59Z 20T12:00",
		"-d " + both + " -u 0 -status 22":                               "20T07:59:59Z",
		"-d " + both + " -u 0 -from 08:00 -to 12:00":                    "20T08:00 21T09:00",
		"-d " + both + " -u 0 -from 12:00 -to 24:00":                    "20T12:00",
		"-d " + both + " -u 0 -from 2023-11-20T13:00:00+01:00":          "20T12:00 21T09:00",
		"-d " + both + " -u 0 -to 2023-11-21T09:00:00Z -from 07:59:59":  "20T07:59:59Z 20T08:00 20T12:00",
		"-d " + both + " -u 2 -worker rig-1 -status stale -format text": "20T08:00",
	} {
		out, stderr, code := printed(t, cfg, strings.Fields(args)...)
		if got := times(out); got != want || code != 0 || strings.Count(out, "\n") != len(strings.Fields(want)) {
			t.Errorf("%s: %s, want %s, code %d\n%s", args, got, want, code, stderr)
		}
	}

	out, _, code := printed(t, cfg, "-d", both, "-u", "0", "-format", "csv")
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || code != 0 || strings.Count(out, "\r\n") != 6 || strings.Count(out, "\n") != 6 {
		t.Errorf("code %d, %v:\n%s", code, err, out)
	}
	if diff := cmp.Diff([][]string{
		{"time", "user_id", "worker_id", "status", "status_text", "difficulty", "network_difficulty", "height", "job_id", "ip", "bits", "nonce", "session_id", "version_bits"},
		{"2023-11-20T12:00:00Z", "2", "-5", "77", "Unknown", "0.25", "1.000", "840000", "18446744073709551615", "2001:db8::1", "1d00ffff", "deadbeef", "0000002a", "00000000"},
	}, [][]string{rows[0], rows[4]}); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	out, _, _ = printed(t, cfg, "-d", both, "-u", "0", "-format", "json")
	for i, line := range strings.Split(strings.TrimSuffix(out, "\n"), "\n") {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		for n, name := range rows[0] { // they say the same
			want := any(rows[1+i][n])
			if number, err := strconv.ParseFloat(rows[1+i][n], 64); err == nil && strings.Contains("user_id status difficulty network_difficulty height", name) {
				want = number
			}
			if object[name] != want {
				t.Errorf("line %d, %s: %v, want %v", i, name, object[name], want)
			}
		}
		if len(object) != len(rows[0]) {
			t.Errorf("%s has another number of fields than %v", line, rows[0])
		}
	}

	for args, want := range map[string]string{
		"-d 20231122 -u 0":              "no such file",
		"-d 20231120 -u carol":          "the database knows 0 users named",
		"-d 20231120 -u 0 -worker x*":   "the database knows no worker like",
		"-d 20231120-20231122 -u 0":     "sharelogBTC-2023-11-22.bin",
		"-d 20231120 -u 0 -format yaml": "is none of text, csv, json",
	} {
		if _, stderr, code := printed(t, cfg, strings.Fields(args)...); code == 0 || !strings.Contains(stderr, want) {
			t.Errorf("%s: code %d, %s", args, code, stderr)
		}
	}
}

// TestPrintDamage prints files that are torn, damaged or none of ours: what can be read comes, and place and cause are
// told.
func TestPrintDamage(t *testing.T) {
	day := sharefile.Day(20231120)
	for name, c := range map[string]struct {
		change func([]byte) []byte
		lines  int
		says   string
	}{
		"whole":   {func(b []byte) []byte { return b }, 3, ""},
		"torn":    {func(b []byte) []byte { return b[:len(b)-5] }, 2, "it ends in the middle of a flush, "},
		"damaged": {func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, 2, "bytes at "},
		"foreign": {func([]byte) []byte { return bytes.Repeat([]byte("<html>"), 100) }, 0, "no gzip member"},
		"empty":   {func([]byte) []byte { return nil }, 0, ""},
	} {
		cfg := testConfig(t)
		log := newShareLog(t, cfg.DataDir)
		for range 3 {
			log.write(t, newShare(1, 11, day.Start()))
		}
		path := sharefile.Path(cfg.DataDir, "BTC", day)
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, c.change(file), 0o640); err != nil {
			t.Fatal(err)
		}
		for _, format := range []string{"text", "csv", "json"} {
			out, stderr, code := printed(t, cfg, "-d", "20231120", "-u", "0", "-format", format)
			want := c.lines
			if format == "csv" {
				want++
			}
			if lines := strings.Count(out, "\n"); lines != want || (code == 0) != (c.says == "") || !strings.Contains(stderr, c.says) {
				t.Errorf("%s as %s: %d lines, code %d, %s", name, format, lines, code, stderr)
			}
			if c.says != "" && !strings.Contains(stderr, path) {
				t.Errorf("%s: the file is not named: %s", name, stderr)
			}
		}
	}
}

// TestTextsAreNoFormulas: a spreadsheet takes no text of a status for one, nor splits it.
func TestTextsAreNoFormulas(t *testing.T) {
	t.Parallel()
	for _, status := range append(share.Statuses(), 4711) {
		if text := status.Text(); text == "" || strings.ContainsAny(text[:1], "=+-@\t\r") || strings.ContainsAny(text, "\",\r\n\\") {
			t.Errorf("%d: %q", status, text)
		}
	}
}
