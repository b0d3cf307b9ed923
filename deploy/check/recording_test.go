package check

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

var recordingPath = flag.String("recording", "", "TestRecording: a `file` of test/load's TestPipeline, in which nothing went wrong")

// recording is what was scraped in the course of time.
type recording struct {
	times  []time.Time
	series map[string]*recorded // by labels
}

type recorded struct {
	labels  labels.Labels
	samples []chunks.Sample
}

// readRecording reads pages, before each a line with its job, instance and time in milliseconds. An empty page is of a
// service that did not answer.
func readRecording(text []byte) (*recording, error) {
	r := &recording{series: map[string]*recorded{}}
	const mark = "# scrape "
	for _, part := range strings.Split("\n"+string(text), "\n"+mark)[1:] {
		head, page, _ := strings.Cut(part, "\n")
		var job, instance string
		var at int64
		if _, err := fmt.Sscan(head, &job, &instance, &at); err != nil {
			return nil, fmt.Errorf("%q: %w", mark+head, err)
		}
		if t := time.UnixMilli(at); len(r.times) == 0 || !r.times[len(r.times)-1].Equal(t) {
			r.times = append(r.times, t)
		}
		up := 0.0
		if page != "" {
			up = 1
		}
		r.add(labels.FromStrings(model.MetricNameLabel, "up", model.JobLabel, job, model.InstanceLabel, instance), at, up)
		parser := textparse.NewPromParser([]byte(page+"\n"), labels.NewSymbolTable(), false)
		for {
			entry, err := parser.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", job, err)
			}
			if entry != textparse.EntrySeries {
				continue
			}
			var of labels.Labels
			_, _, v := parser.Series()
			parser.Labels(&of)
			r.add(labels.NewBuilder(of).Set(model.JobLabel, job).Set(model.InstanceLabel, instance).Labels(), at, v)
		}
	}
	if len(r.times) == 0 {
		return nil, errors.New("nothing was scraped")
	}
	return r, nil
}

func (r *recording) add(of labels.Labels, at int64, v float64) {
	name := of.String()
	if r.series[name] == nil {
		r.series[name] = &recorded{labels: of}
	}
	r.series[name].samples = append(r.series[name].samples, sample{t: at, v: v})
}

// list returns the series as the engine takes them.
func (r *recording) list() (all []storage.Series) {
	for _, name := range slices.Sorted(maps.Keys(r.series)) {
		all = append(all, storage.NewListSeries(r.series[name].labels, r.series[name].samples))
	}
	return all
}

// apart is the usual time between two scrapes.
func (r *recording) apart() time.Duration {
	if len(r.times) < 2 {
		return time.Minute
	}
	return r.times[len(r.times)-1].Sub(r.times[0]) / time.Duration(len(r.times)-1)
}

// fired returns the alerts that fired at any time, each with what it said first.
func (r *recording) fired(t *testing.T, engine *promql.Engine) map[string]string {
	t.Helper()
	fired, all := map[string]string{}, r.list()
	for _, rule := range alerts(t) {
		since := map[string]time.Time{}
		for _, at := range r.times {
			still := map[string]time.Time{}
			for _, s := range query(t, engine, all, rule.Expr, at) {
				who := s.Metric.String()
				if still[who] = at; !since[who].IsZero() {
					still[who] = since[who]
				}
				if at.Sub(still[who]) >= time.Duration(rule.For) && fired[rule.Alert] == "" {
					fired[rule.Alert] = fmt.Sprintf("%s %v after %v", who, s.F, at.Sub(r.times[0]))
				}
			}
			since = still
		}
	}
	return fired
}

// quietPanels have series that are of what need not happen: there is nothing to be seen then. Whole boards are of what
// need not run.
var (
	quietPanels = map[string]bool{
		"Pool, Templates that could not be used": true, "sserver: miners, Disconnected": true, "sserver: miners, Refused connections": true,
		"sserver: miners, Refused logins": true, "sserver: miners, Bans": true, "Kafka's path, Errors": true,
		"Kafka's path, Skipped and read anew": true, "Kafka's path, Clock refused": true, "Statistics, Failed writes": true,
		"Statistics, Messages to people": true,
	}
	quietBoards = map[string]bool{"agents": true, "chains": true}
)

// shown holds the panels to showing something at some time.
func (r *recording) shown(t *testing.T, engine *promql.Engine) {
	t.Helper()
	all, total := r.list(), 0
	for _, b := range boards {
		if quietBoards[b.file] {
			continue
		}
		for _, row := range b.rows {
			for _, p := range row.panels {
				for _, s := range p.series {
					total++
					expr := strings.ReplaceAll(s.expr, "$__rate_interval", model.Duration(max(4*r.apart(), time.Second).Round(time.Second)).String())
					something := slices.ContainsFunc(r.times, func(at time.Time) bool {
						return slices.ContainsFunc(query(t, engine, all, expr, at), func(s promql.Sample) bool { return !math.IsNaN(s.F) })
					})
					if !something && !quietPanels[b.title+", "+p.title] {
						t.Errorf("%s, %s: nothing of %s", b.title, p.title, expr)
					}
				}
			}
		}
	}
	t.Logf("%d series of %d dashboards show something", total, len(boards)-len(quietBoards))
}

// TestRecording has the engine judge what was scraped: alerts that fire when they have to and not otherwise, dashboards
// that show something.
func TestRecording(t *testing.T) {
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 50e6, Timeout: time.Minute, Parser: promQL})
	t.Run("made up", func(t *testing.T) {
		for _, test := range []struct {
			away int // scrapes that sserver does not answer
			want []string
		}{{0, nil}, {40, []string{"ServiceDown"}}} {
			var text bytes.Buffer
			for i := range 60 {
				page := "# TYPE btcpool_ready gauge\nbtcpool_ready 1\n"
				if i >= 10 && i < 10+test.away {
					page = ""
				}
				fmt.Fprintf(&text, "# scrape sserver a:1 %d\n%s# scrape jobmaker b:1 %d\nbtcpool_ready 1\n", 1e12+15_000*i, page, int(1e12)+15_000*i)
			}
			r, err := readRecording(text.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if got := slices.Sorted(maps.Keys(r.fired(t, engine))); !slices.Equal(got, test.want) {
				t.Errorf("sserver away for %d scrapes: %v fired, want %v", test.away, got, test.want)
			}
		}
	})
	if *recordingPath == "" {
		return
	}
	t.Run("recorded", func(t *testing.T) {
		text, err := os.ReadFile(*recordingPath)
		if err != nil {
			t.Fatal(err)
		}
		r, err := readRecording(text)
		if err != nil {
			t.Fatal(err)
		}
		fired := r.fired(t, engine)
		for _, name := range slices.Sorted(maps.Keys(fired)) {
			t.Errorf("%s fired: %s", name, fired[name])
		}
		t.Logf("%d rules, evaluated at %d times over %v: %d fired", len(alerts(t)), len(r.times), r.times[len(r.times)-1].Sub(r.times[0]), len(fired))
		r.shown(t, engine)
	})
}

// query evaluates an expression at a time.
func query(t *testing.T, engine *promql.Engine, all []storage.Series, expr string, at time.Time) promql.Vector {
	t.Helper()
	q, err := engine.NewInstantQuery(context.Background(), &storage.MockQueryable{MockQuerier: &storage.MockQuerier{
		SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
			selected := slices.DeleteFunc(slices.Clone(all), func(s storage.Series) bool {
				return !labels.Selector(matchers).Matches(s.Labels())
			})
			return &seriesSet{storage.EmptySeriesSet(), nil, selected}
		},
	}}, nil, expr, at)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	result := q.Exec(context.Background())
	if result.Err != nil {
		t.Fatal(fmt.Errorf("%s: %w", expr, result.Err))
	}
	vector, err := result.Vector()
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", expr, err))
	}
	return slices.Clone(vector)
}
