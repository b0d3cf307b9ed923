//go:build integration

package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/archive"
	"btcpool/internal/bus"
	"btcpool/internal/sealed"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/test/integration/rig"
)

// How engines count the records of a sealed day in a bucket: arguments are address, bucket and key, access and secret key.
const (
	chdbOnS3 = `
import chdb, sys
url, access, secret = "http://" + "/".join(sys.argv[1:4]), *sys.argv[4:]
print(chdb.query(f"SELECT count() FROM s3('{url}', '{access}', '{secret}', 'Parquet') WHERE difficulty = 3", "TSV"), end="")
`
	pyarrowOnS3 = `
import sys
import pyarrow.compute as pc, pyarrow.fs as fs, pyarrow.parquet as pq
s3 = fs.S3FileSystem(endpoint_override=sys.argv[1], scheme="http", access_key=sys.argv[4], secret_key=sys.argv[5], region="us-east-1")
print(pc.sum(pc.equal(pq.read_table(sys.argv[2] + "/" + sys.argv[3], filesystem=s3)["difficulty"], 3)).as_py())
`
)

// TestArchiveOnS3 has a sealed day copied to a real S3 server, which is killed meanwhile, and others read it
// there. Shares that come late are sealed and copied again.
func TestArchiveOnS3(t *testing.T) {
	t.Parallel()
	const midnight = 1706659200
	day, dir := sharefile.DayOf(midnight), t.TempDir()
	log := filepath.Join(dir, "sharelog")
	offset := int64(0)
	add := func(n int) {
		t.Helper()
		w, err := sharefile.OpenWriter(log, "BTC", zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			offset++
			s := share.Share{
				ID: share.ID{Server: 7, Epoch: midnight, Seq: uint64(offset)}, JobID: 1, WorkerID: offset % 7, UserID: 1, Status: share.StatusAccept,
				Time: midnight + offset%86400, Difficulty: 3, Bits: 0x17034219, Height: 828000, Nonce: uint32(offset),
			}
			if _, err := w.Add(&bus.Message{Offset: offset}, &s, s.AppendBody(nil)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := sealed.Seal(t.Context(), log, "BTC", day); err != nil {
			t.Fatal(err)
		}
	}
	s3 := rig.StartS3(t, dir)
	config := archive.Config{
		Endpoint: s3.Addr, Insecure: true, Bucket: s3.Bucket, Prefix: "pool", Region: "us-east-1", AccessKey: s3.AccessKey, SecretKey: s3.SecretKey,
	}
	const key = "BTC/2024/day.parquet"
	path := sealed.Path(log, "BTC", day)
	store, err := archive.New(config)
	if err != nil {
		t.Fatal(err)
	}
	object := filepath.Join(s3.Objects, "pool", filepath.FromSlash(key))
	archived := func(records int64) {
		t.Helper()
		if err := store.Put(t.Context(), key, path); err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(object)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("the server has %d bytes, sealed are %d: %v", len(got), len(want), err)
		}
		for engine, program := range map[string]string{"chdb": chdbOnS3, "pyarrow": pyarrowOnS3} {
			python := filepath.Join(rig.Root(t), ".cache", "python", "bin", "python")
			out, err := exec.CommandContext(t.Context(), python, "-c", program, s3.Addr, s3.Bucket, "pool/"+key, s3.AccessKey, s3.SecretKey).CombinedOutput()
			if counted := strings.TrimSpace(string(out)); err != nil || counted != fmt.Sprint(records) {
				t.Errorf("%s counts %s, %v, want %d", engine, counted, err, records)
			}
		}
	}
	add(3000)
	archived(3000)
	before, err := os.Stat(object)
	if err != nil {
		t.Fatal(err)
	}
	archived(3000)
	if after, err := os.Stat(object); err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("what is there is sent again: %v", err)
	}

	s3.Kill()
	add(500)
	short, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	if err := store.Put(short, key, path); err == nil {
		t.Error("archived without a server")
	}
	cancel()
	s3.Start()
	s3.WaitReady(t)
	archived(3500)

	config.SecretKey = "another"
	stranger, err := archive.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Put(t.Context(), key, path); err == nil || !strings.Contains(err.Error(), "Access Denied") {
		t.Errorf("with a wrong secret: %v", err)
	}
}
