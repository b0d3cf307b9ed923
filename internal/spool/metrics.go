package spool

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/telemetry"
)

type metrics struct {
	appended, sent, full    prometheus.Counter
	writeErrors, sendErrors prometheus.Counter
	lostRecords, lostBytes  prometheus.Counter
	syncSeconds             prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, name string, s *Spool) *metrics {
	set := telemetry.Metrics(prometheus.WrapRegistererWith(prometheus.Labels{"spool": name}, reg), "spool")
	set.GaugeFunc("depth_records", "Records that have not been sent yet.", func() float64 {
		records, _ := s.Depth()
		return float64(records)
	})
	set.GaugeFunc("depth_bytes", "Size of the records that have not been sent yet.", func() float64 {
		_, bytes := s.Depth()
		return float64(bytes)
	})
	set.GaugeFunc("oldest_seconds", "For how long the oldest record has been waiting to be sent.", func() float64 {
		return s.oldestAge(time.Now()).Seconds()
	})
	return &metrics{
		appended:    set.Counter("appended_total", "Records taken."),
		sent:        set.Counter("sent_total", "Records sent and acknowledged, repetitions included."),
		full:        set.Counter("full_total", "Records refused because the spool was full."),
		writeErrors: set.Counter("write_errors_total", "Writes that the disk refused."),
		sendErrors:  set.Counter("send_errors_total", "Batches that were not acknowledged and sent again."),
		lostRecords: set.Counter("lost_records_total", "Records, at least, that were skipped because the disk damaged them."),
		lostBytes:   set.Counter("lost_bytes_total", "Bytes skipped in search of the next whole record."),
		syncSeconds: set.Histogram("sync_seconds", "Time to bring one group of records to disk.",
			prometheus.ExponentialBuckets(0.00005, 2, 18)), // 50 µs to 6.5 s
	}
}
