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
	"strconv"
	"strings"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

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
			w.ledger.Destroyed(lost)
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
	end := max(int64(len(log))-n, 0)
	for _, batch := range batches(log) {
		if batch.end > end {
			lost = append(lost, values(w.t, log[batch.at:batch.end])...)
		}
	}
	if err := os.Truncate(path, end); err != nil {
		w.t.Fatal(err)
	}
	return lost
}

// batches returns where the record batches of a broker's log begin and end.
func batches(log []byte) (all []struct{ at, end int64 }) {
	const lengthAt, header = 8, 12 // base offset, then the length of what follows
	for at := int64(0); at+header <= int64(len(log)); {
		size := header + int64(binary.BigEndian.Uint32(log[at+lengthAt:]))
		if size == header || at+size > int64(len(log)) {
			break // the file is longer than what was written, or the broker died while it wrote
		}
		all = append(all, struct{ at, end int64 }{at, at + size})
		at += size
	}
	return all
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
	before := w.deleted()
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
	for p, n := range w.buried(before, partitions) {
		w.fill(admin, p, int(f.amount*1.5*float64(n)))
	}
	return func() {
		sserver.Resume()
		sharelogger.Start()
	}
}

// deleted returns the folders of the topic of shares that the broker has put aside to remove them a minute later.
func (w *world) deleted() []string {
	folders, err := filepath.Glob(filepath.Join(w.kafka.Logs, shareTopic+"-*-delete"))
	if err != nil {
		w.t.Fatal(err)
	}
	return folders
}

// buried notes what was in a topic that was deleted, and returns the number of records by partition. The broker's files
// are what is read: a request that was on its way to it when sserver was paused may have been written after all.
func (w *world) buried(before []string, partitions int) []int {
	w.t.Helper()
	var folders []string
	testkit.Until(w.t, patience, "the broker puts the deleted "+shareTopic+" aside", func(context.Context) error {
		folders = slices.DeleteFunc(w.deleted(), func(f string) bool { return slices.Contains(before, f) })
		if len(folders) != partitions {
			return fmt.Errorf("%d of %d partitions", len(folders), partitions)
		}
		return nil
	})
	counts := make([]int, partitions)
	for _, folder := range folders {
		name, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(folder), shareTopic+"-"), ".")
		p, err := strconv.Atoi(name)
		if err != nil {
			w.t.Fatalf("%s is no partition's folder", folder)
		}
		files, err := filepath.Glob(filepath.Join(folder, "*.log"))
		if err != nil {
			w.t.Fatal(err)
		}
		for _, file := range files {
			log, err := os.ReadFile(file)
			if err != nil {
				w.t.Fatal(err)
			}
			for _, batch := range batches(log) {
				lost := values(w.t, log[batch.at:batch.end])
				counts[p] += len(lost)
				w.ledger.Destroyed(lost)
			}
		}
	}
	return counts
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
