// Package telemetry is what a part of the pool says of itself: its logger and its metrics, all made one way.
package telemetry

import (
	"btcpool/internal/upgrade"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/rs/zerolog"
)

// Deps is what the frame gives to a service, and a service to its parts.
type Deps struct {
	Log     zerolog.Logger
	Metrics prometheus.Registerer // nil: not registered anywhere
	// Predecessor is the process that this one goes on for; nil: there is none.
	Predecessor *upgrade.Predecessor

	root prometheus.Registerer
}

// For returns the Deps of a service that runs beside others in one process: its log lines and metrics carry
// service=name instead of the process's own.
func (d Deps) For(name string) Deps {
	if d.root == nil {
		d.root = d.Metrics
	}
	d.Log = d.Log.With().Str("service", name).Logger()
	d.Metrics = prometheus.WrapRegistererWith(prometheus.Labels{"service": name}, d.root)
	return d
}

// Set makes and registers the metrics of one part of the pool. Their names begin with btcpool_<part>_.
type Set struct {
	factory promauto.Factory
	part    string
}

// Metrics returns the Set of a part. Metrics of a nil Registerer are not registered anywhere.
func Metrics(reg prometheus.Registerer, part string) Set { return Set{promauto.With(reg), part} }

func (s Set) opts(name, help string) prometheus.Opts {
	return prometheus.Opts{Namespace: "btcpool", Subsystem: s.part, Name: name, Help: help}
}

// Counter makes a counter; the name ends with _total.
func (s Set) Counter(name, help string) prometheus.Counter {
	return s.factory.NewCounter(prometheus.CounterOpts(s.opts(name, help)))
}

// Counters makes counters that differ by labels.
func (s Set) Counters(name, help string, labels ...string) *prometheus.CounterVec {
	return s.factory.NewCounterVec(prometheus.CounterOpts(s.opts(name, help)), labels)
}

// CounterFunc makes a counter that is asked for its value, from any goroutine.
func (s Set) CounterFunc(name, help string, value func() float64) {
	s.factory.NewCounterFunc(prometheus.CounterOpts(s.opts(name, help)), value)
}

// Gauge makes a gauge.
func (s Set) Gauge(name, help string) prometheus.Gauge {
	return s.factory.NewGauge(prometheus.GaugeOpts(s.opts(name, help)))
}

// Gauges makes gauges that differ by labels.
func (s Set) Gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return s.factory.NewGaugeVec(prometheus.GaugeOpts(s.opts(name, help)), labels)
}

// GaugeFunc makes a gauge that is asked for its value, from any goroutine.
func (s Set) GaugeFunc(name, help string, value func() float64) {
	s.factory.NewGaugeFunc(prometheus.GaugeOpts(s.opts(name, help)), value)
}

// Histogram makes a histogram with the given upper bounds.
func (s Set) Histogram(name, help string, buckets []float64) prometheus.Histogram {
	return s.factory.NewHistogram(s.histogram(name, help, buckets))
}

// Histograms makes histograms that differ by labels.
func (s Set) Histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return s.factory.NewHistogramVec(s.histogram(name, help, buckets), labels)
}

func (s Set) histogram(name, help string, buckets []float64) prometheus.HistogramOpts {
	o := s.opts(name, help)
	return prometheus.HistogramOpts{Namespace: o.Namespace, Subsystem: o.Subsystem, Name: o.Name, Help: o.Help, Buckets: buckets}
}
