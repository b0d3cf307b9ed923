//go:build integration

package faults

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

// mostCut is how many bytes a tail that is lost has at most.
const mostCut = 4 << 10

// cutTail takes from the broker what a power cut with one replica takes: the last bytes of its files. Nothing else
// holds the shares of these records that sharelogger has not read yet, so that those alone may be missing.
func (w *world) cutTail(f fault) func() {
	w.kafka.Kill()
	folders, err := filepath.Glob(filepath.Join(w.kafka.Logs, "Btc*-*"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, folder := range folders {
		files, err := filepath.Glob(filepath.Join(folder, "*.log"))
		if err != nil || len(files) == 0 {
			w.t.Fatalf("%s has no log: %v", folder, err)
		}
		slices.Sort(files)
		lost := w.cut(files[len(files)-1], int64(f.amount*mostCut))
		if topic := filepath.Base(folder); topic[:len(topic)-2] == shareTopic {
			w.ledger.destroyed(lost)
		}
	}
	return w.startKafka
}

// cut shortens a log and returns the values of the records that are not whole in it any more.
func (w *world) cut(path string, n int64) (lost [][]byte) {
	w.t.Helper()
	log, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	const lengthAt, header = 8, 12 // base offset, then the length of what follows
	end := max(int64(len(log))-n, 0)
	for at := int64(0); at+header <= int64(len(log)); {
		size := header + int64(binary.BigEndian.Uint32(log[at+lengthAt:]))
		if size == header || at+size > int64(len(log)) {
			break // the file is longer than what was written, or the broker died while it wrote
		}
		if at+size > end {
			lost = append(lost, values(w.t, log[at:at+size])...)
		}
		at += size
	}
	if err := os.Truncate(path, end); err != nil {
		w.t.Fatal(err)
	}
	return lost
}

// values returns those of the records of a batch.
func values(t interface{ Fatalf(string, ...any) }, batch []byte) (all [][]byte) {
	var set protocol.RecordSet
	sized := append(binary.BigEndian.AppendUint32(nil, uint32(len(batch))), batch...)
	if _, err := set.ReadFrom(bytes.NewReader(sized)); err != nil {
		t.Fatalf("record batch of %d bytes: %v", len(batch), err)
	}
	for {
		record, err := set.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("record: %v", err)
		}
		value, err := protocol.ReadAll(record.Value)
		if err != nil {
			t.Fatalf("value of a record: %v", err)
		}
		all = append(all, value)
	}
}

// topicAnew deletes the topic of shares and makes it anew while sharelogger is down, with more or fewer records of
// somebody else's than it had. What sharelogger had not read is gone: those shares may be missing, and no other.
func (w *world) topicAnew(f fault) func() {
	sharelogger, sserver := w.pool.Service("sharelogger"), w.pool.Service("sserver")
	sharelogger.Kill()
	sserver.Pause()
	admin := w.admin()
	partitions := w.partitions()
	var ends []int64
	for p := range partitions {
		lost := w.readPartition(p)
		w.ledger.destroyed(lost)
		ends = append(ends, int64(len(lost)))
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	answer, err := admin.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{shareTopic}})
	if err == nil {
		err = answer.Errors[shareTopic]
	}
	if err != nil {
		w.t.Fatalf("delete %s: %v", shareTopic, err)
	}
	testkit.Until(w.t, patience, shareTopic+" is made anew", func(ctx context.Context) error {
		answer, err := admin.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
			Topic: shareTopic, NumPartitions: partitions, ReplicationFactor: 1,
		}}})
		if err == nil {
			err = answer.Errors[shareTopic]
		}
		if errors.Is(err, kafka.TopicAlreadyExists) && w.partitions() == partitions { // a service was faster
			return nil
		}
		return err
	})
	for p, end := range ends {
		w.fill(admin, p, int(f.amount*1.5*float64(end)))
	}
	return func() {
		sserver.Resume()
		sharelogger.Start()
	}
}

// readPartition returns the values of all records of a partition of the topic of shares.
func (w *world) readPartition(partition int) (all [][]byte) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	dialer := &kafka.Dialer{Timeout: 10 * time.Second}
	conn, err := dialer.DialLeader(ctx, "tcp", w.kafka.Addr, shareTopic, partition)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	first, last, err := conn.ReadOffsets()
	if err != nil {
		w.t.Fatal(err)
	}
	if first == last {
		return nil
	}
	r := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{w.kafka.Addr}, Topic: shareTopic, Partition: partition, MaxWait: 100 * time.Millisecond,
	})
	defer r.Close()
	if err := r.SetOffset(first); err != nil {
		w.t.Fatal(err)
	}
	for {
		m, err := r.ReadMessage(ctx)
		if err != nil {
			w.t.Fatalf("partition %d of %s: %v", partition, shareTopic, err)
		}
		if all = append(all, m.Value); m.Offset >= last-1 {
			return all
		}
	}
}

// fill writes so many records that are no shares.
func (w *world) fill(admin *kafka.Client, partition, n int) {
	w.t.Helper()
	if n == 0 {
		return
	}
	records := make([]protocol.Record, n)
	for i := range records {
		records[i].Value = protocol.NewBytes(fmt.Append(nil, "no share ", i))
	}
	testkit.Until(w.t, patience, "foreign records", func(ctx context.Context) error {
		answer, err := admin.Produce(ctx, &kafka.ProduceRequest{
			Topic: shareTopic, Partition: partition, RequiredAcks: kafka.RequireAll, Records: protocol.NewRecordReader(records...),
		})
		if err == nil {
			err = answer.Error
		}
		return err
	})
}

// shareOf returns the accepted share in a record; false if it is none.
func shareOf(value []byte) (s share.Share, ok bool) {
	return s, s.Parse(value) == nil && s.Status == share.StatusAccept
}
