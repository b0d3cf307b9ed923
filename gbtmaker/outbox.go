package gbtmaker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"btcpool/internal/durable"
	"btcpool/internal/job"
)

// An outbox keeps a template from before its light form is sent until all of it
// is: jobs are made of the light form, and a block found on one needs the rest.
// What is in the outbox when the process is killed is sent by the next process.
// It is synced only if it is to stay for long: a power cut before that costs the blocks of one template.
//
// The file is overwritten in place, which is cheap for megabytes: u32 time and u64 length, little-endian, then the hash
// in hex as in RawGBT, then the node's answer. With the length 0 the outbox is empty. With a hash that is not the
// answer's it is worthless: its writer was killed before it had sent anything.
type outbox struct {
	lock, file *os.File
}

const outboxHeader = 4 + 8 + 64 // bytes

// maxOutbox is more than any node's answer, in bytes.
const maxOutbox = 64 << 20

func openOutbox(dir string) (*outbox, error) {
	lock, err := durable.Lock(dir)
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, "template"), os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &outbox{lock: lock, file: file}, nil
}

func (o *outbox) close() error { return errors.Join(o.file.Close(), o.lock.Close()) }

// fill writes an answer in place of what was kept. It is kept once seal was called.
func (o *outbox) fill(response []byte) error {
	if err := o.clear(); err != nil {
		return err
	}
	_, err := o.file.WriteAt(response, outboxHeader)
	return err
}

// seal has r be kept, whose answer is in the outbox.
func (o *outbox) seal(r job.RawGBT) error {
	header := binary.LittleEndian.AppendUint32(make([]byte, 0, outboxHeader), r.CreatedAt)
	header = binary.LittleEndian.AppendUint64(header, uint64(len(r.Response)))
	_, err := o.file.WriteAt(append(header, r.Hash...), 0)
	return err
}

func (o *outbox) sync() error { return o.file.Sync() }

func (o *outbox) clear() error {
	_, err := o.file.WriteAt(make([]byte, outboxHeader), 0)
	return err
}

// kept returns what is kept, if that is a whole template.
func (o *outbox) kept() (r job.RawGBT, ok bool, err error) {
	b, err := io.ReadAll(io.NewSectionReader(o.file, 0, outboxHeader+maxOutbox))
	if err != nil {
		return job.RawGBT{}, false, err
	}
	if r, ok, err = parseOutbox(b); err != nil {
		return job.RawGBT{}, false, fmt.Errorf("%s: %w", o.file.Name(), err)
	}
	return r, ok, nil
}

func parseOutbox(b []byte) (r job.RawGBT, ok bool, err error) {
	if len(b) < outboxHeader {
		return job.RawGBT{}, false, nil
	}
	header, response := b[:outboxHeader], b[outboxHeader:]
	size := binary.LittleEndian.Uint64(header[4:])
	switch {
	case size == 0:
		return job.RawGBT{}, false, nil
	case size > uint64(len(response)):
		return job.RawGBT{}, false, fmt.Errorf("%d bytes of template are %d", size, len(response))
	}
	r = job.NewRawGBT(response[:size], time.Unix(int64(binary.LittleEndian.Uint32(header)), 0))
	return r, string(header[12:]) == r.Hash, nil
}
