package slparser

import (
	"bufio"
	"errors"
	"io"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"btcpool/internal/sealed"
	"btcpool/internal/sharefile"
)

// BenchmarkSealedSum counts a day that is only sealed: on all cores, with hours of workers, users and the pool; and the same
// record by record. Raw is the limit: on one core, the pages of the same columns are decompressed, and nothing else.
//
//	go test -run xxx -bench SealedSum -benchtime 10x -timeout 2h ./slparser -args -shares 8640000 -workers 1000
func BenchmarkSealedSum(b *testing.B) {
	dir := b.TempDir()
	makeDay(b, dir)
	if _, err := sealed.Seal(b.Context(), dir, "BTC", benchDay); err != nil {
		b.Fatal(err)
	}
	if err := os.Remove(sharefile.Path(dir, "BTC", benchDay)); err != nil {
		b.Fatal(err)
	}
	shares := float64(*benchShares)
	cfg := DefaultConfig()
	cfg.DataDir, cfg.Day, cfg.Database.DSN = dir, benchDay, "sqlite:unused"
	b.Run("count", func(b *testing.B) {
		measure(b, shares, cfg, func(s *Service) error { return countAll(b, s, shares) })
	})
	b.Run("records", func(b *testing.B) {
		measure(b, shares, cfg, func(s *Service) error {
			c := newCounter(benchDay, s.rules, runtime.GOMAXPROCS(0))
			_, err := s.readWhole(b.Context(), benchDay, 0, into{batch: c.take}, func(int64, int64) {})
			c.end()
			return err
		})
	})
	b.Run("raw", func(b *testing.B) {
		measure(b, shares, cfg, func(*Service) error { return inflate(sealed.Path(dir, "BTC", benchDay)) })
	})
}

var countedColumns = []string{
	"user_id", "worker_id", "ext_user_id", "status", "time", "difficulty", "job_id", "bits", "height", "record",
}

// inflate decompresses all pages of the columns that are counted.
func inflate(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	file, err := parquet.OpenFile(f, info.Size(), parquet.SkipPageIndex(true))
	if err != nil {
		return err
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer d.Close()
	var page, out []byte
	for _, group := range file.Metadata().RowGroups {
		for _, column := range group.Columns {
			is := column.MetaData
			if !slices.Contains(countedColumns, is.PathInSchema[0]) {
				continue
			}
			at := is.DataPageOffset
			if o := is.DictionaryPageOffset; o != 0 {
				at = min(at, o)
			}
			in := bufio.NewReaderSize(io.NewSectionReader(f, at, is.TotalCompressedSize), 64<<10)
			var protocol thrift.CompactProtocol
			decoder := thrift.NewDecoder(protocol.NewReader(in))
			for {
				var h format.PageHeader
				if err := decoder.Decode(&h); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					return err
				}
				page = slices.Grow(page[:0], int(h.CompressedPageSize))[:h.CompressedPageSize]
				if _, err := io.ReadFull(in, page); err != nil {
					return err
				}
				levels := h.DataPageHeaderV2.V.DefinitionLevelsByteLength
				if out, err = d.DecodeAll(page[levels:], out[:0]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
