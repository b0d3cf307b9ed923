package slparser

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
)

// print writes the valid shares of the days that the filter lets through, one a line, in the order of the files. Those
// behind damage come, too; the error tells of it, and of days that are over and end in the middle of a flush.
func (s *Service) print(ctx context.Context, w io.Writer) error {
	f, err := s.filter(ctx)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 64<<10)
	p := printer{appendShare: formats[s.cfg.Print.Format]}
	if s.cfg.Print.Format == "csv" {
		_, _ = out.WriteString(csvHeader) // Flush tells
	}
	var line []byte
	for day := range s.cfg.days() {
		var t tally
		read, errDay := s.readWhole(ctx, day, 0, into{batch: func(batch []byte) {
			t.read(batch, func(sh *share.Share) bool {
				if f.lets(day, sh) {
					line = p.appendShare(&p, line[:0], sh)
					_, _ = out.Write(line) // Flush tells
				}
				return true
			})
		}}, func(int64, int64) {})
		s.metrics.add(t)
		for _, d := range read.damages {
			errDay = errors.Join(errDay, d)
		}
		switch {
		case read.end == nil:
		case day < sharefile.DayOf(time.Now().Unix()) || errors.Is(read.end, sharefile.ErrCorrupt):
			errDay = errors.Join(errDay, read.end)
		default:
			s.log.Warn().Err(read.end).Msg("the file may go on")
		}
		if errDay != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", sharefile.Path(s.cfg.DataDir, s.cfg.Chain, day), errDay))
		}
		if errFlush := out.Flush(); errFlush != nil || ctx.Err() != nil {
			return errors.Join(err, errFlush)
		}
	}
	return err
}

// printer knows the network's difficulty of the last share: those of a block have the same.
type printer struct {
	appendShare func(*printer, []byte, *share.Share) []byte
	bits        uint32
	network     string
}

func (p *printer) networkOf(s *share.Share) string {
	if p.network == "" || s.Bits != p.bits {
		difficulty := 0.0
		if target, err := bitcoin.TargetFromBits(s.Bits); err == nil {
			difficulty = target.Difficulty()
		}
		p.bits, p.network = s.Bits, strconv.FormatFloat(difficulty, 'f', 3, 64)
	}
	return p.network
}

// formats are what Print.Format can be.
var formats = map[string]func(*printer, []byte, *share.Share) []byte{
	"text": (*printer).appendText,
	"csv":  (*printer).appendCSV,
	"json": (*printer).appendJSON,
}

// appendText describes a share, in the order of btcpool's output.
func (p *printer) appendText(dst []byte, s *share.Share) []byte {
	dst = strconv.AppendUint(append(dst, "job="...), s.JobID, 10)
	dst = append(append(dst, " ip="...), s.IP.String()...)
	dst = strconv.AppendInt(append(dst, " user="...), int64(s.UserID), 10)
	dst = strconv.AppendInt(append(dst, " worker="...), s.WorkerID, 10)
	dst = appendTime(append(dst, " time="...), s)
	dst = strconv.AppendUint(append(dst, " height="...), uint64(s.Height), 10)
	dst = appendHex(append(dst, " bits="...), s.Bits)
	dst = append(append(dst, '/'), p.networkOf(s)...)
	dst = s.Difficulty.AppendTo(append(dst, " difficulty="...))
	dst = appendHex(append(dst, " nonce="...), s.Nonce)
	dst = appendHex(append(dst, " session="...), s.SessionID)
	dst = appendHex(append(dst, " version_bits="...), s.VersionBits)
	dst = strconv.AppendInt(append(dst, " status="...), int64(s.Status), 10)
	dst = strconv.AppendQuote(append(dst, '/'), s.Status.Text())
	return append(dst, '\n')
}

// csvHeader names what appendCSV appends, RFC 4180. No field is text that anybody but this program has made: none can
// become a formula in a spreadsheet.
const csvHeader = "time,user_id,worker_id,status,status_text,difficulty,network_difficulty,height,job_id,ip,bits,nonce,session_id,version_bits\r\n"

func (p *printer) appendCSV(dst []byte, s *share.Share) []byte {
	dst = append(appendTime(dst, s), ',')
	dst = append(strconv.AppendInt(dst, int64(s.UserID), 10), ',')
	dst = append(strconv.AppendInt(dst, s.WorkerID, 10), ',')
	dst = append(strconv.AppendInt(dst, int64(s.Status), 10), ',')
	dst = append(append(dst, s.Status.Text()...), ',')
	dst = append(s.Difficulty.AppendTo(dst), ',')
	dst = append(append(dst, p.networkOf(s)...), ',')
	dst = append(strconv.AppendUint(dst, uint64(s.Height), 10), ',')
	dst = append(strconv.AppendUint(dst, s.JobID, 10), ',')
	dst = append(appendIP(dst, s), ',')
	dst = append(appendHex(dst, s.Bits), ',')
	dst = append(appendHex(dst, s.Nonce), ',')
	dst = append(appendHex(dst, s.SessionID), ',')
	return append(appendHex(dst, s.VersionBits), '\r', '\n')
}

// appendJSON appends an object with the names of csvHeader. Numbers of 64 bits are strings: many readers of JSON have
// 53.
func (p *printer) appendJSON(dst []byte, s *share.Share) []byte {
	dst = appendTime(append(dst, `{"time":"`...), s)
	dst = strconv.AppendInt(append(dst, `","user_id":`...), int64(s.UserID), 10)
	dst = strconv.AppendInt(append(dst, `,"worker_id":"`...), s.WorkerID, 10)
	dst = strconv.AppendInt(append(dst, `","status":`...), int64(s.Status), 10)
	dst = append(append(dst, `,"status_text":"`...), s.Status.Text()...)
	dst = s.Difficulty.AppendTo(append(dst, `","difficulty":`...))
	dst = append(append(dst, `,"network_difficulty":`...), p.networkOf(s)...)
	dst = strconv.AppendUint(append(dst, `,"height":`...), uint64(s.Height), 10)
	dst = strconv.AppendUint(append(dst, `,"job_id":"`...), s.JobID, 10)
	dst = appendIP(append(dst, `","ip":"`...), s)
	dst = appendHex(append(dst, `","bits":"`...), s.Bits)
	dst = appendHex(append(dst, `","nonce":"`...), s.Nonce)
	dst = appendHex(append(dst, `","session_id":"`...), s.SessionID)
	dst = appendHex(append(dst, `","version_bits":"`...), s.VersionBits)
	return append(dst, "\"}\n"...)
}

func appendTime(dst []byte, s *share.Share) []byte {
	return time.Unix(s.Time, 0).UTC().AppendFormat(dst, time.RFC3339)
}

func appendIP(dst []byte, s *share.Share) []byte {
	if !s.IP.IsValid() {
		return dst
	}
	return s.IP.AppendTo(dst)
}

func appendHex(dst []byte, v uint32) []byte {
	const digits = "0123456789abcdef"
	for shift := 28; shift >= 0; shift -= 4 {
		dst = append(dst, digits[v>>shift&15])
	}
	return dst
}

// formatNames lists formats.
func formatNames() string { return strings.Join([]string{"text", "csv", "json"}, ", ") }
