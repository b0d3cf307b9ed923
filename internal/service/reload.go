package service

import (
	"context"
	"reflect"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// A Reloader is a Runner that goes over to another configuration while it runs: its process reads all of it again on
// SIGHUP, which Windows does not have. Keys of fields with the tag reload:"no" keep their values until a restart.
type Reloader[C Config] interface {
	Runner
	// Reload goes over to cfg, which is valid, or stays as it was and returns why.
	Reload(ctx context.Context, cfg C) error
}

// reloadTimeout is how long going over may take.
const reloadTimeout = 10 * time.Second

type reloadMetrics struct{ successful, at prometheus.Gauge }

func newReloadMetrics(reg *prometheus.Registry) reloadMetrics {
	m := reloadMetrics{
		successful: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "btcpool_config_last_reload_successful",
			Help: "1 if the configuration was in order when it was read last.",
		}),
		at: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "btcpool_config_last_reload_success_timestamp_seconds",
			Help: "When the configuration was last read that is in use.",
		}),
	}
	reg.MustRegister(m.successful, m.at)
	m.successful.Set(1)
	m.at.SetToCurrentTime()
	return m
}

// reload is what SIGHUP does.
type reload[C Config] struct {
	log     zerolog.Logger
	metrics reloadMetrics
	file    *LogFile // nil: none
	lowest  *threshold
	now     C // the configuration in use
	read    func() (C, Log, []string, error)
	to      Reloader[C]
}

func (r *reload[C]) do(ctx context.Context) {
	if r.file != nil {
		if err := r.file.Reopen(); err != nil {
			r.log.Error().Err(err).Msg("log file not opened again")
		}
	}
	next, logging, warnings, err := r.read()
	for _, w := range warnings {
		r.log.Warn().Msg(w)
	}
	var changed, kept []string
	if err == nil {
		changed, kept = compare(reflect.ValueOf(r.now), reflect.ValueOf(&next).Elem(), "")
		ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
		defer cancel()
		err = r.to.Reload(ctx, next)
	}
	if err != nil {
		r.metrics.successful.Set(0)
		r.log.Error().Err(err).Msg("the new configuration is not used, the old one stays")
		return
	}
	r.now = next
	r.lowest.set(logging)
	r.metrics.successful.Set(1)
	r.metrics.at.SetToCurrentTime()
	if len(kept) > 0 {
		r.log.Warn().Strs("keys", kept).Msg("these keys have changed and need a restart")
	}
	r.log.Info().Strs("changed", changed).Msg("configuration read again")
}

// compare returns the keys by which next, which can be set, differs from now. Those that need a restart are set back.
func compare(now, next reflect.Value, section string) (changed, kept []string) {
	for i := range now.NumField() {
		field := now.Type().Field(i)
		key := section + field.Tag.Get("toml")
		a, b := now.Field(i), next.Field(i)
		switch {
		case !field.IsExported():
		case field.Anonymous:
			c, k := compare(a, b, section)
			changed, kept = append(changed, c...), append(kept, k...)
		case isSection(field.Type):
			c, k := compare(a, b, key+".")
			changed, kept = append(changed, c...), append(kept, k...)
		case equal(a, b):
		case field.Tag.Get("reload") == "no":
			kept = append(kept, key)
			b.Set(a)
		default:
			changed = append(changed, key)
		}
	}
	return changed, kept
}

// isSection reports whether values of type t have keys of their own.
func isSection(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	for i := range t.NumField() {
		if t.Field(i).Tag.Get("toml") != "" {
			return true
		}
	}
	return false
}

// equal compares two values; an empty list is none.
func equal(a, b reflect.Value) bool {
	if a.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}
