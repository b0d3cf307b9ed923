package bus

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	readMessages, readBytes       *prometheus.CounterVec
	writtenMessages, writtenBytes *prometheus.CounterVec
	readErrors, writeErrors       *prometheus.CounterVec
	readSkipped                   *prometheus.CounterVec
	readLag                       *prometheus.GaugeVec
	writeSeconds                  *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	factory := promauto.With(reg)
	counter := func(name, help string) *prometheus.CounterVec {
		return factory.NewCounterVec(prometheus.CounterOpts{Name: "btcpool_bus_" + name, Help: help}, []string{"topic"})
	}
	return &metrics{
		readMessages: counter("read_messages_total", "Messages handed to the reader."),
		readBytes:    counter("read_bytes_total", "Bytes of keys and values handed to the reader."),
		readErrors:   counter("read_errors_total", "Requests for messages that were repeated."),
		readSkipped:  counter("read_skipped_total", "Offsets that retention had removed before they were read."),
		readLag: factory.NewGaugeVec(prometheus.GaugeOpts{
			Name: "btcpool_bus_read_lag_messages",
			Help: "Messages that the topic holds behind the last one fetched.",
		}, []string{"topic", "partition"}),
		writtenMessages: counter("written_messages_total", "Messages acknowledged by all replicas in sync."),
		writtenBytes:    counter("written_bytes_total", "Bytes of keys and values acknowledged."),
		writeErrors:     counter("write_errors_total", "Attempts to write a batch that did not succeed."),
		writeSeconds: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "btcpool_bus_write_seconds",
			Help:    "From handing a batch to the client until it was acknowledged, repetitions included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16), // 0.5 ms to 16 s
		}, []string{"topic"}),
	}
}
