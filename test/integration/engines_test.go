//go:build integration

package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/sealed"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/test/integration/rig"
)

// engineSum is what an engine says of the shares of a status and difficulty. Sums over hashes are exact by these.
type engineSum struct {
	Status     int32
	Difficulty int32
	Shares     int64
	Seqs       string // sum of the sequences
	Workers    int64
}

// How each engine groups a sealed day. They print rows of JSON, and the footer as the last line.
const (
	duckdbSums = `
import duckdb, json, sys
rows = duckdb.execute("SELECT status, difficulty, count(*), CAST(sum(seq) AS VARCHAR), count(DISTINCT (user_id, worker_id)) "
    "FROM read_parquet(?) GROUP BY ALL ORDER BY ALL", [sys.argv[1]]).fetchall()
for row in rows: print(json.dumps(row))
print(duckdb.execute("SELECT value FROM parquet_kv_metadata(?) WHERE key = 'btcpool.sharelog'", [sys.argv[1]]).fetchone()[0].decode())
`
	chdbSums = `
import chdb, json, sys
file = "file('" + sys.argv[1] + "', 'Parquet')"
sums = ("SELECT status, difficulty, toInt64(count()), toString(sum(toInt128(seq))), toInt64(uniqExact(user_id, worker_id)) FROM " + file +
    " GROUP BY status, difficulty ORDER BY status, difficulty SETTINGS output_format_json_quote_64bit_integers = 0")
print(chdb.query(sums, "JSONCompactEachRow"), end="")
import pyarrow.parquet as pq # ClickHouse does not tell of key-value metadata
print(pq.ParquetFile(sys.argv[1]).metadata.metadata[b"btcpool.sharelog"].decode())
`
	pyarrowSums = `
import collections, json, sys
import pyarrow.parquet as pq
file = pq.ParquetFile(sys.argv[1])
groups = collections.defaultdict(lambda: [0, 0, set()])
last = None
for batch in file.iter_batches(columns=["user_id", "worker_id", "status", "difficulty", "seq"]):
    for user, worker, status, difficulty, seq in zip(*(column.to_pylist() for column in batch.columns)):
        assert last is None or last <= (user, worker), "not sorted"
        last = user, worker
        group = groups[status, difficulty]
        group[0] += 1
        group[1] += seq
        group[2].add(last)
for key in sorted(groups):
    count, seqs, workers = groups[key]
    print(json.dumps([*key, count, str(seqs), len(workers)]))
print(file.metadata.metadata[b"btcpool.sharelog"].decode())
`
)

// TestEnginesReadSealedDays has engines of others sum a sealed day.
func TestEnginesReadSealedDays(t *testing.T) {
	t.Parallel()
	const midnight = 1706659200
	day := sharefile.DayOf(midnight)
	dir, random := t.TempDir(), rand.New(rand.NewPCG(1, 1))
	w, err := sharefile.OpenWriter(dir, "BTC", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	type group struct{ status, difficulty int32 }
	seqs, counts, workers := make(map[group]uint64), make(map[group]int64), make(map[group]map[[2]int64]bool)
	for i := range uint64(50_000) {
		s := share.Share{
			ID: share.ID{Server: 7, Epoch: midnight, Seq: i + 1}, JobID: midnight << 32, WorkerID: int64(random.IntN(300)) - 150,
			UserID: 1 + int32(random.IntN(20)), Status: []share.Status{share.StatusAccept, share.StatusStale, share.StatusUnknown}[random.IntN(3)],
			Time: midnight + int64(i), IP: netip.MustParseAddr("2001:db8::1"), Difficulty: bitcoin.Difficulty(random.IntN(20) - 3),
			Bits: 0x17034219, Height: 828000, Nonce: random.Uint32(), SessionID: random.Uint32(), VersionBits: random.Uint32(),
		}
		if _, err := w.Add(&bus.Message{Offset: int64(i)}, &s, s.AppendBody(nil)); err != nil {
			t.Fatal(err)
		}
		g := group{int32(s.Status), int32(s.Difficulty)}
		seqs[g] += s.ID.Seq
		counts[g]++
		if workers[g] == nil {
			workers[g] = make(map[[2]int64]bool)
		}
		workers[g][[2]int64{int64(s.UserID), s.WorkerID}] = true
	}
	if _, err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	footer, err := sealed.Seal(t.Context(), dir, "BTC", day)
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[engineSum]bool)
	for g, n := range counts {
		want[engineSum{g.status, g.difficulty, n, fmt.Sprint(seqs[g]), int64(len(workers[g]))}] = true
	}
	for engine, program := range map[string]string{"chdb": chdbSums, "duckdb": duckdbSums, "pyarrow": pyarrowSums} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			python := filepath.Join(rig.Root(t), ".cache", "python", "bin", "python")
			cmd := exec.CommandContext(t.Context(), python, "-c", program, sealed.Path(dir, "BTC", day))
			out, err := cmd.Output()
			if failed := new(exec.ExitError); errors.As(err, &failed) {
				t.Fatalf("%v: %s", err, failed.Stderr)
			} else if err != nil {
				t.Fatalf("%v (test/install.sh installs what reads Parquet)", err)
			}
			got := make(map[engineSum]bool)
			dec := json.NewDecoder(bytes.NewReader(out))
			said := new(sealed.Footer)
			for dec.More() {
				var line json.RawMessage
				if err := dec.Decode(&line); err != nil {
					t.Fatal(err)
				}
				if line[0] == '{' {
					if err := json.Unmarshal(line, said); err != nil {
						t.Fatal(err)
					}
					continue
				}
				var sum engineSum
				if err := json.Unmarshal(line, &[]any{&sum.Status, &sum.Difficulty, &sum.Shares, &sum.Seqs, &sum.Workers}); err != nil {
					t.Fatal(err)
				}
				got[sum] = true
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("sums (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(footer, said); diff != "" {
				t.Errorf("footer (-want +got):\n%s", diff)
			}
		})
	}
}
