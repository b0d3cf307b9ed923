package bus

import (
	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/telemetry"
)

type metrics struct {
	readMessages, readBytes        *prometheus.CounterVec
	writtenMessages, writtenBytes  *prometheus.CounterVec
	readErrors, writeErrors        *prometheus.CounterVec
	readSkipped, rewinds, timeless *prometheus.CounterVec
	readLag                        *prometheus.GaugeVec
	writeSeconds                   *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	set := telemetry.Metrics(reg, "bus")
	return &metrics{
		readMessages: set.Counters("read_messages_total", "Messages handed to the reader.", "topic"),
		readBytes:    set.Counters("read_bytes_total", "Bytes of keys and values handed to the reader.", "topic"),
		readErrors:   set.Counters("read_errors_total", "Requests for messages that were repeated.", "topic"),
		readSkipped:  set.Counters("read_skipped_total", "Offsets that retention had removed before they were read.", "topic"),
		rewinds: set.Counters("read_rewinds_total",
			"How often a partition did not hold what was read last, and was read again from the earliest.", "topic"),
		readLag:         set.Gauges("read_lag_messages", "Messages that the topic holds behind the last one fetched.", "topic", "partition"),
		writtenMessages: set.Counters("written_messages_total", "Messages acknowledged by all replicas in sync.", "topic"),
		writtenBytes:    set.Counters("written_bytes_total", "Bytes of keys and values acknowledged.", "topic"),
		writeErrors:     set.Counters("write_errors_total", "Attempts to write a batch that did not succeed.", "topic"),
		timeless:        set.Counters("write_timeless_total", "Batches written without times, because the broker refused those: a clock is wrong.", "topic"),
		writeSeconds: set.Histograms("write_seconds", "From handing a batch to the client until it was acknowledged, repetitions included.",
			prometheus.ExponentialBuckets(0.0005, 2, 16), "topic"), // 0.5 ms to 16 s
	}
}
