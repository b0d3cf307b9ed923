package testkit

import (
	"compress/gzip"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"btcpool/internal/share"
	"btcpool/internal/sharefile"
)

// AppendShares appends shares to the files of their days as btcpool's sharelogger does: a gzip member a file, without a
// word of whose it is.
func AppendShares(tb testing.TB, dir, chain string, shares []share.Share) {
	tb.Helper()
	records := make(map[sharefile.Day][]byte)
	for _, s := range shares {
		body := s.AppendBody(nil)
		day := sharefile.DayOf(s.Time)
		records[day] = append(binary.LittleEndian.AppendUint32(records[day], uint32(len(body))), body...)
	}
	for day, data := range records {
		f, err := os.OpenFile(sharefile.Path(dir, chain, day), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			tb.Fatal(err)
		}
		gz := gzip.NewWriter(f)
		_, err = gz.Write(data)
		if err := errors.Join(err, gz.Close(), f.Close()); err != nil {
			tb.Fatal(err)
		}
	}
}
