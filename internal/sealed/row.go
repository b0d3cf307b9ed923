package sealed

import (
	"bytes"
	"cmp"
	"net/netip"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
)

// row is a record as the file has it. What is constant for a worker, or has few values, goes by dictionary; what grows,
// by differences; and random bits stay as they are.
type row struct {
	UserID      int32  `parquet:"user_id,dict,zstd"`
	WorkerID    int64  `parquet:"worker_id,dict,zstd"`
	ExtUserID   int32  `parquet:"ext_user_id,dict,zstd"`
	Status      int32  `parquet:"status,dict,zstd"`
	Time        int64  `parquet:"time,delta,zstd"`
	Difficulty  int32  `parquet:"difficulty,dict,zstd"`
	JobID       uint64 `parquet:"job_id,dict,zstd"`
	Bits        uint32 `parquet:"bits,dict,zstd"`
	Height      uint32 `parquet:"height,dict,zstd"`
	IP          string `parquet:"ip,dict,zstd"`
	SessionID   uint32 `parquet:"session_id,dict,zstd"`
	Nonce       uint32 `parquet:"nonce,plain,uncompressed"`
	VersionBits uint32 `parquet:"version_bits,dict,zstd"`
	BitsReached uint32 `parquet:"bits_reached,plain,zstd"`
	Server      uint32 `parquet:"server,dict,zstd"`
	Epoch       uint32 `parquet:"epoch,dict,zstd"`
	Seq         uint64 `parquet:"seq,delta,zstd"`
	// Record is what was written, where the columns do not say it: by other software, or no share at all.
	Record []byte `parquet:"record,optional,zstd"`
}

// compare orders rows by user and worker.
func (r *row) compare(o *row) int {
	return cmp.Or(cmp.Compare(r.UserID, o.UserID), cmp.Compare(r.WorkerID, o.WorkerID))
}

// codec makes rows of records, and records of rows. It keeps buffers.
type codec struct {
	share share.Share
	body  []byte
	texts map[netip.Addr]string
	addrs map[string]netip.Addr
}

func newCodec() *codec {
	return &codec{texts: make(map[netip.Addr]string), addrs: make(map[string]netip.Addr)}
}

// maxAddrs bounds the memory of addresses.
const maxAddrs = 1 << 20

// row makes a row, which shares no memory with the record. It reports whether the record is a share; if so it stands
// in c.share until the next call.
func (c *codec) row(record []byte) (row, bool) {
	s := &c.share
	if s.ParseBody(record) != nil {
		return row{Record: bytes.Clone(record)}, false
	}
	r := row{
		UserID: s.UserID, WorkerID: s.WorkerID, ExtUserID: s.ExtUserID, Status: int32(s.Status), Time: s.Time,
		Difficulty: int32(s.Difficulty), JobID: s.JobID, Bits: s.Bits, Height: s.Height, IP: c.text(s.IP),
		SessionID: s.SessionID, Nonce: s.Nonce, VersionBits: s.VersionBits, BitsReached: s.BitsReached,
		Server: uint32(s.ID.Server), Epoch: s.ID.Epoch, Seq: s.ID.Seq,
	}
	if c.body = s.AppendBody(c.body[:0]); !bytes.Equal(c.body, record) {
		r.Record = bytes.Clone(record)
	}
	return r, true
}

func (c *codec) text(ip netip.Addr) string {
	text, ok := c.texts[ip]
	if !ok && ip.IsValid() {
		if len(c.texts) >= maxAddrs {
			clear(c.texts)
		}
		text = ip.String()
		c.texts[ip] = text
	}
	return text
}

// record returns a row's record, valid until the next call. It reports whether that is a share, which stands in c.share
// then.
func (c *codec) record(r *row) (record []byte, isShare bool, err error) {
	s := &c.share
	if r.Record != nil {
		return r.Record, s.ParseBody(r.Record) == nil, nil
	}
	ip, err := c.addr(r.IP)
	if err != nil {
		return nil, false, err
	}
	*s = share.Share{
		ID:    share.ID{Server: uint8(r.Server), Epoch: r.Epoch, Seq: r.Seq},
		JobID: r.JobID, WorkerID: r.WorkerID, UserID: r.UserID, ExtUserID: r.ExtUserID, Status: share.Status(r.Status),
		Time: r.Time, IP: ip, Difficulty: bitcoin.Difficulty(r.Difficulty), Bits: r.Bits, Height: r.Height, Nonce: r.Nonce,
		SessionID: r.SessionID, VersionBits: r.VersionBits, BitsReached: r.BitsReached,
	}
	c.body = s.AppendBody(c.body[:0])
	return c.body, true, nil
}

func (c *codec) addr(text string) (netip.Addr, error) {
	ip, ok := c.addrs[text]
	if ok || text == "" {
		return ip, nil
	}
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return ip, err
	}
	if len(c.addrs) >= maxAddrs {
		clear(c.addrs)
	}
	c.addrs[text] = ip
	return ip, nil
}
