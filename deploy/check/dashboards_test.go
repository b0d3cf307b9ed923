package check

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	promparser "github.com/prometheus/prometheus/promql/parser"
)

var update = flag.Bool("update", false, "write deploy/grafana/dashboards/ as it should be")

// board is a dashboard of Grafana: rows of panels.
type board struct {
	file, title string
	rows        []row
}

type row struct {
	title  string
	panels []panel
}

// panel draws series over time.
type panel struct {
	title, says string
	unit        string // as Grafana calls it
	series      []series
}

type series struct{ legend, expr string }

// The shapes that most series have.
func perSecond(metric string, by ...string) string {
	return "sum by (" + strings.Join(by, ", ") + ") (rate(" + metric + "[$__rate_interval]))"
}

func quantile(q, metric string, by ...string) string {
	return "histogram_quantile(" + q + ", sum by (" + strings.Join(append(by, "le"), ", ") + ") (rate(" + metric + "_bucket[$__rate_interval])))"
}

// boards are all dashboards. `go test -run Dashboards -update` writes them.
var boards = []board{
	{"pool", "Pool", []row{
		{"What the pool does", []panel{
			{"Hashrate", "By accepted shares, as the dashboard of the pool has it.", "Hs", []series{{"pool", "max(btcpool_statshttpd_pool_hashrate_hashes_per_second)"}}},
			{"Workers", "Online, as the statistics count them, and miners that are connected.", "short", []series{
				{"workers online", "max(btcpool_statshttpd_workers_online)"}, {"miners connected", "sum(btcpool_sserver_miners)"},
			}},
			{"Shares", "By verdict: 0 is accepted, other codes are in the API's list of statuses.", "ops", []series{{"{{code}}", perSecond("btcpool_sserver_shares_total", "code")}}},
			{"Blocks", "By what became of them on the chain.", "short", []series{{"{{state}}", "max by (state) (btcpool_blkmaker_blocks)"}}},
		}},
		{"What runs", []panel{
			{"Ready", "1 while a service can work; its /readyz says what is missing.", "bool_on_off", []series{{"{{job}} {{instance}}", "btcpool_ready"}}},
			{"Versions", "Running programs by version.", "short", []series{{"{{version}}", "count by (version) (btcpool_build_info)"}}},
			{"Processor", "Cores in use.", "short", []series{{"{{job}} {{instance}}", "rate(process_cpu_seconds_total[$__rate_interval])"}}},
			{"Memory", "Resident.", "bytes", []series{{"{{job}} {{instance}}", "process_resident_memory_bytes"}}},
			{"Clocks", "How far a machine's clock is from Prometheus' own: shares and templates carry times.", "s", []series{
				{"{{instance}}", "btcpool_clock_timestamp_seconds - timestamp(btcpool_clock_timestamp_seconds)"},
			}},
			{"Open files", "Of what the process may have.", "percentunit", []series{{"{{job}} {{instance}}", "process_open_fds / process_max_fds"}}},
		}},
		{"Work", []panel{
			{"Heights", "Of nodes, templates, jobs and what miners work on: lines that part show where it stops.", "short", []series{
				{"node {{node}}", "btcpool_gbtmaker_node_height_blocks"},
				{"template", "max(btcpool_gbtmaker_template_height_blocks)"},
				{"job", "max(btcpool_jobmaker_height)"},
				{"miners {{instance}}", "btcpool_sserver_job_height"},
			}},
			{"Age of the job", "Since miners have had a new one.", "s", []series{
				{"sserver {{instance}}", "btcpool_sserver_job_age_seconds"}, {"jobmaker {{instance}}", "btcpool_jobmaker_since_last_job_seconds"},
			}},
			{"Templates", "By what asked for them.", "ops", []series{{"{{trigger}}", perSecond("btcpool_gbtmaker_templates_total", "trigger")}}},
			{"Templates that could not be used", "", "ops", []series{{"{{reason}}", perSecond("btcpool_gbtmaker_failures_total", "reason")}}},
		}},
	}},
	{"sserver", "sserver: miners", []row{
		{"Sessions", []panel{
			{"Sessions", "By state.", "short", []series{{"{{instance}} {{state}}", "btcpool_sserver_sessions"}}},
			{"Disconnected", "By reason.", "ops", []series{{"{{reason}}", perSecond("btcpool_sserver_disconnects_total", "reason")}}},
			{"Refused connections", "By reason.", "ops", []series{{"{{reason}}", perSecond("btcpool_sserver_connections_refused_total", "reason")}}},
			{"Refused logins", "By reason.", "ops", []series{{"{{reason}}", perSecond("btcpool_sserver_logins_refused_total", "reason")}}},
			{"Bans", "By reason.", "ops", []series{{"{{reason}}", perSecond("btcpool_sserver_bans_total", "reason")}}},
			{"Network", "", "Bps", []series{{"received", perSecond("btcpool_sserver_received_bytes_total")}, {"sent", perSecond("btcpool_sserver_sent_bytes_total")}}},
		}},
		{"Answers", []panel{
			{"Until a share is answered", "From its arrival, the disk included.", "s", []series{
				{"half", quantile("0.5", "btcpool_sserver_answer_seconds")}, {"99 of 100", quantile("0.99", "btcpool_sserver_answer_seconds")},
			}},
			{"Until all have a job", "From a job's arrival until the last session has it.", "s", []series{
				{"half", quantile("0.5", "btcpool_sserver_broadcast_seconds")}, {"99 of 100", quantile("0.99", "btcpool_sserver_broadcast_seconds")},
			}},
			{"Rejected", "Of all shares.", "percentunit", []series{{
				"{{instance}}", `sum by (instance) (rate(btcpool_sserver_shares_total{code!="0"}[$__rate_interval])) / sum by (instance) (rate(btcpool_sserver_shares_total[$__rate_interval]))`,
			}}},
			{"Changes of difficulty", "", "ops", []series{{"{{instance}}", perSecond("btcpool_sserver_difficulty_changes_total", "instance")}}},
		}},
		{"Spools", []panel{
			{"Waiting", "Shares and blocks on sserver's disk that Kafka does not have.", "short", []series{{"{{instance}} {{spool}}", "btcpool_spool_depth_records"}}},
			{"Oldest", "Age of what waits.", "s", []series{{"{{instance}} {{spool}}", "btcpool_spool_oldest_seconds"}}},
			{"Disk", "How long a write until it is on the disk takes.", "s", []series{{"99 of 100", quantile("0.99", "btcpool_spool_sync_seconds", "instance")}}},
			{"Lost, full, not written", "Any is a fault of the disk.", "ops", []series{
				{"lost records {{instance}}", perSecond("btcpool_spool_lost_records_total", "instance")},
				{"full {{instance}}", perSecond("btcpool_spool_full_total", "instance")},
				{"write errors {{instance}}", perSecond("btcpool_spool_write_errors_total", "instance")},
			}},
		}},
	}},
	{"kafka", "Kafka's path", []row{
		{"Through", []panel{
			{"Written", "By service and topic.", "ops", []series{{"{{job}} {{topic}}", perSecond("btcpool_bus_written_messages_total", "job", "topic")}}},
			{"Read", "By service and topic.", "ops", []series{{"{{job}} {{topic}}", perSecond("btcpool_bus_read_messages_total", "job", "topic")}}},
			{"Behind", "Messages that a topic holds and a service has not read.", "short", []series{{"{{job}} {{topic}}", "sum by (job, topic) (btcpool_bus_read_lag_messages)"}}},
			{"Until written", "99 of 100 batches.", "s", []series{{"{{job}} {{topic}}", quantile("0.99", "btcpool_bus_write_seconds", "job", "topic")}}},
		}},
		{"Trouble", []panel{
			{"Errors", "Tries that did not succeed.", "ops", []series{
				{"write {{job}} {{topic}}", perSecond("btcpool_bus_write_errors_total", "job", "topic")}, {"read {{job}} {{topic}}", perSecond("btcpool_bus_read_errors_total", "job", "topic")},
			}},
			{"Skipped and read anew", "Retention took what was not read; or the topic is not what it was.", "short", []series{
				{"skipped {{job}} {{topic}}", "sum by (job, topic) (btcpool_bus_read_skipped_total)"}, {"anew {{job}} {{topic}}", "sum by (job, topic) (btcpool_bus_read_rewinds_total)"},
			}},
			{"The direct way of blocks", "1 while sserver can hand blocks to blkmaker without Kafka.", "bool_on_off", []series{{"{{instance}} {{url}}", "btcpool_handover_up"}}},
			{"Clock refused", "Batches without times, because the broker's clock or ours is wrong.", "ops", []series{{"{{job}} {{topic}}", perSecond("btcpool_bus_write_timeless_total", "job", "topic")}}},
		}},
	}},
	{"blocks", "Blocks", []row{
		{"Found", []panel{
			{"Solved shares", "As sserver found them, and as blkmaker took them, by way.", "short", []series{
				{"found {{instance}}", "btcpool_sserver_solved_total"}, {"taken {{kind}} {{way}}", "sum by (kind, way) (btcpool_blkmaker_arrivals_total)"},
			}},
			{"What nodes said", "By node and verdict.", "short", []series{{"{{node}} {{verdict}}", "sum by (node, verdict) (btcpool_blkmaker_submissions_total)"}}},
			{"What became of them", "By blkmaker's own verdict.", "short", []series{{"{{result}}", "sum by (result) (btcpool_blkmaker_solved_shares_total)"}}},
			{"On the chain", "", "short", []series{{"{{state}}", "max by (state) (btcpool_blkmaker_blocks)"}}},
			{"Without a row", "Of the database.", "short", []series{{"{{instance}}", "btcpool_blkmaker_blocks_without_row"}}},
			{"Other chains", "Blocks mined along, by what their nodes said.", "short", []series{{"{{kind}} {{result}}", "sum by (kind, result) (btcpool_blkmaker_merged_blocks_total)"}}},
		}},
		{"How fast", []panel{
			{"Until a block is made", "", "s", []series{{"99 of 100", quantile("0.99", "btcpool_blkmaker_prepare_seconds")}}},
			{"Until a node has answered", "", "s", []series{{"{{node}}", quantile("0.99", "btcpool_blkmaker_submit_seconds", "node")}}},
			{"In work", "", "short", []series{{"solving", "sum(btcpool_blkmaker_solving)"}, {"waiting for job or template", "sum(btcpool_blkmaker_waiting)"}}},
			{"Kept", "Jobs and templates that a block can be made of.", "short", []series{{"jobs", "max(btcpool_blkmaker_cached_jobs)"}, {"templates", "max(btcpool_blkmaker_cached_templates)"}}},
		}},
	}},
	{"statistics", "Statistics", []row{
		{"Share log", []panel{
			{"Written", "Shares in the log.", "ops", []series{{"{{instance}}", perSecond("btcpool_sharelogger_shares_written_total", "instance")}}},
			{"Behind", "Age of the newest share in the log, while there are newer ones.", "s", []series{{"{{instance}}", "btcpool_sharelogger_lag_seconds"}}},
			{"Not logged", "By reason; repeated ones are in the log already.", "ops", []series{{"{{reason}}", perSecond("btcpool_sharelogger_shares_dropped_total", "reason")}}},
			{"Sealed days", "Days that could not be sealed, archived or removed.", "short", []series{{"{{instance}}", "btcpool_sharelogger_days_unsealed"}}},
		}},
		{"Tables", []panel{
			{"Counted", "Shares by slparser.", "ops", []series{{"{{instance}}", perSecond("btcpool_slparser_shares_total", "instance")}}},
			{"Newest share that is counted", "Its age.", "s", []series{{"{{instance}}", "time() - btcpool_slparser_newest_share_timestamp_seconds"}}},
			{"Rows", "Written.", "ops", []series{{"{{instance}}", perSecond("btcpool_slparser_rows_written_total", "instance")}}},
			{"Failed writes", "The database is away, or full.", "ops", []series{
				{"slparser {{instance}}", perSecond("btcpool_slparser_flush_failures_total", "instance")},
				{"statshttpd {{instance}}", `sum by (instance) (rate(btcpool_statshttpd_flushes_total{result="failed"}[$__rate_interval]))`},
			}},
			{"Damage", "Bytes of the share log that cannot be read; days that have less than their rows.", "short", []series{
				{"damaged", "max(btcpool_slparser_damaged_bytes)"}, {"torn", "max(btcpool_slparser_torn_bytes)"}, {"days short", "max(btcpool_slparser_days_short)"},
			}},
		}},
		{"Dashboard and API", []panel{
			{"Requests", "By status.", "ops", []series{{"{{code}}", perSecond("btcpool_statshttpd_http_requests_total", "code")}}},
			{"Until answered", "", "s", []series{{"99 of 100", quantile("0.99", "btcpool_statshttpd_http_request_seconds")}}},
			{"Workers", "Known and waiting for their first share.", "short", []series{{"online", "max(btcpool_statshttpd_workers_online)"}, {"waiting", "max(btcpool_statshttpd_workers_waiting)"}}},
			{"Messages to people", "By kind and what became of them.", "ops", []series{{"{{kind}} {{result}}", perSecond("btcpool_notify_messages_total", "kind", "result")}}},
		}},
	}},
	{"agents", "Farms: agentproxy", []row{
		{"Machines", []panel{
			{"Machines", "Connected, without a pool, and silent.", "short", []series{
				{"connected {{instance}}", "sum by (instance) (btcpool_agentproxy_miners)"},
				{"waiting {{instance}}", "sum by (instance) (btcpool_agentproxy_miners_waiting)"},
				{"silent {{instance}}", "sum by (instance) (btcpool_agentproxy_silent_miners)"},
			}},
			{"Disconnected", "By reason.", "ops", []series{{"{{instance}} {{reason}}", perSecond("btcpool_agentproxy_disconnects_total", "instance", "reason")}}},
			{"Moved to keep weights", "", "ops", []series{{"{{instance}}", perSecond("btcpool_agentproxy_balance_moves_total", "instance")}}},
		}},
		{"Pools", []panel{
			{"Links", "Connections to pools, and those lost.", "short", []series{
				{"up {{instance}}", "sum by (instance) (btcpool_agentproxy_links)"}, {"lost a second {{instance}}", perSecond("btcpool_agentproxy_links_lost_total", "instance")},
			}},
			{"Verdicts of pools", "By status.", "ops", []series{{"{{instance}} {{status}}", perSecond("btcpool_agentproxy_verdicts_total", "instance", "status")}}},
			{"Answers to machines", "By status.", "ops", []series{{"{{instance}} {{status}}", perSecond("btcpool_agentproxy_answers_total", "instance", "status")}}},
			{"Until a verdict", "", "s", []series{{"99 of 100", quantile("0.99", "btcpool_agentproxy_verdict_seconds", "instance")}}},
			{"Lost shares", "", "ops", []series{{"{{instance}} {{reason}}", perSecond("btcpool_agentproxy_shares_lost_total", "instance", "reason")}}},
		}},
	}},
	{"chains", "Chains: switcher", []row{
		{"Miners", []panel{
			{"Miners", "By the chain that they mine.", "short", []series{{"{{instance}} {{chain}}", "sum by (instance, chain) (btcpool_switcher_chain_sessions)"}}},
			{"Coming in", "Miners that do not mine yet, by how far they are.", "short", []series{{"{{instance}} {{phase}}", `sum by (instance, phase) (btcpool_switcher_sessions{phase!="mining"})`}}},
			{"Disconnected", "By reason.", "ops", []series{{"{{instance}} {{reason}}", perSecond("btcpool_switcher_disconnected_total", "instance", "reason")}}},
			{"Refused", "Requests answered by the switcher itself, by reason.", "ops", []series{{"{{instance}} {{reason}}", perSecond("btcpool_switcher_refusals_total", "instance", "reason")}}},
		}},
		{"Switches", []panel{
			{"Switches", "To each chain, and those that failed.", "ops", []series{
				{"{{chain}}", perSecond("btcpool_switcher_switches_total", "chain")}, {"{{chain}} {{result}}", perSecond("btcpool_switcher_switches_failed_total", "chain", "result")},
			}},
			{"Until the new chain's job", "", "s", []series{{"99 of 100", quantile("0.99", "btcpool_switcher_switch_seconds", "instance")}}},
			{"ZooKeeper", "1 while it says what users mine, and how old the file is that is for when it does not.", "short", []series{
				{"connected {{instance}}", "btcpool_chainwatch_connected"}, {"age {{instance}}", "btcpool_chainwatch_snapshot_age_seconds"},
			}},
			{"Users", "Whose chain is known, and watches.", "short", []series{{"known {{instance}}", "btcpool_chainwatch_users"}, {"watches {{instance}}", "btcpool_chainwatch_watches"}}},
		}},
		{"Servers", []panel{
			{"Servers", "1 while one answers.", "short", []series{{"{{instance}} {{chain}} {{server}}", "btcpool_switcher_server_up"}}},
			{"Shares", "By chain and what became of them.", "ops", []series{{"{{chain}} {{result}}", perSecond("btcpool_switcher_shares_total", "chain", "result")}}},
			{"Connections lost", "", "ops", []series{{"{{chain}}", perSecond("btcpool_switcher_server_connections_lost_total", "chain")}}},
		}},
	}},
}

// object is a JSON object.
type object = map[string]any

// render is what Grafana reads: two panels beside each other.
func (b board) render(t *testing.T) []byte {
	t.Helper()
	const (
		width, height = 12, 8
	)
	source := object{"type": "prometheus", "uid": "${datasource}"}
	panels, y := []object{}, 0
	add := func(p object, x, w, h int) {
		p["id"], p["gridPos"] = len(panels)+1, object{"x": x, "y": y, "w": w, "h": h}
		panels = append(panels, p)
	}
	for _, r := range b.rows {
		add(object{"type": "row", "title": r.title, "collapsed": false, "panels": []object{}}, 0, 2*width, 1)
		y++
		for i, p := range r.panels {
			targets := []object{}
			for j, s := range p.series {
				targets = append(targets, object{"refId": string(rune('A' + j)), "expr": s.expr, "legendFormat": s.legend, "datasource": source})
			}
			add(object{
				"type": "timeseries", "title": p.title, "description": p.says, "datasource": source, "targets": targets,
				"fieldConfig": object{"defaults": object{"unit": p.unit, "min": 0, "custom": object{"fillOpacity": 10, "showPoints": "never"}}, "overrides": []object{}},
				"options":     object{"legend": object{"displayMode": "list", "placement": "bottom", "showLegend": true}, "tooltip": object{"mode": "multi", "sort": "desc"}},
			}, i%2*width, width, height)
			if i%2 == 1 || i == len(r.panels)-1 {
				y += height
			}
		}
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetIndent("", " ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(object{
		"uid": "btcpool-" + b.file, "title": b.title, "tags": []string{"btcpool"}, "timezone": "utc", "schemaVersion": 39, "version": 1,
		"editable": false, "refresh": "30s", "time": object{"from": "now-6h", "to": "now"}, "panels": panels,
		"links": []object{{"type": "dashboards", "tags": []string{"btcpool"}, "title": "btcpool", "asDropdown": true, "keepTime": true}},
		"templating": object{"list": []object{
			{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": object{"text": "Prometheus", "value": "prometheus"}, "hide": 0},
		}},
	}); err != nil {
		t.Fatal(err)
	}
	return text.Bytes()
}

// TestDashboards holds deploy/grafana/dashboards/ to what is said here.
func TestDashboards(t *testing.T) {
	folder := filepath.Join(root, "deploy", "grafana", "dashboards")
	want := map[string]bool{}
	for _, b := range boards {
		name := b.file + ".json"
		want[name] = true
		text := b.render(t)
		if *update {
			if err := os.WriteFile(filepath.Join(folder, name), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil || !bytes.Equal(got, text) {
			t.Errorf("%s is not what the code makes (go test -run Dashboards -update): %v", name, err)
		}
	}
	files, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !want[f.Name()] {
			t.Errorf("%s is made by nothing", f.Name())
		}
	}
}

// labelsOf returns the labels that the code gives to metrics by their last argument, by metric. One that has
// them from its registry is not among it.
func labelsOf(t *testing.T) map[string][]string {
	t.Helper()
	given := regexp.MustCompile(`\.(?:Counters|Gauges|Histograms)\(\s*"(\w+)"(?s:(.*?))\)[,\n]`)
	label := regexp.MustCompile(`, "([a-z_]+)"`)
	part := regexp.MustCompile(`telemetry\.Metrics\([^"]*, "(\w+)"\)`)
	labels := map[string][]string{}
	for _, pattern := range []string{"*/*.go", "internal/*/*.go"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			of := part.FindSubmatch(text)
			if of == nil {
				continue
			}
			for _, m := range given.FindAllStringSubmatch(string(text), -1) {
				metric := "btcpool_" + string(of[1]) + "_" + m[1]
				for _, l := range label.FindAllStringSubmatch(m[2], -1) {
					labels[metric] = append(labels[metric], l[1])
				}
			}
		}
	}
	if !slices.Equal(labels["btcpool_blkmaker_submissions_total"], []string{"node", "verdict"}) {
		t.Fatalf("labels are not found as they are written: %v", labels["btcpool_blkmaker_submissions_total"])
	}
	return labels
}

// TestDashboardsUseWhatExists finds the metrics of all panels among those that the services register, and the labels of
// legends among those that a panel's expression keeps.
func TestDashboardsUseWhatExists(t *testing.T) {
	metrics, literals := registered(t)
	labels := labelsOf(t)
	for _, name := range []string{"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"} {
		if _, ok := metrics[name]; !ok {
			t.Errorf("no process tells its %s", name)
		}
	}
	scrapers := map[string]bool{"job": true, "instance": true} // labels
	legend := regexp.MustCompile(`{{(\w+)}}`)
	for _, b := range boards {
		for _, r := range b.rows {
			for _, p := range r.panels {
				for _, s := range p.series {
					where := b.title + ", " + p.title
					expr, err := promQL.ParseExpr(strings.ReplaceAll(s.expr, "$__rate_interval", "5m"))
					if err != nil {
						t.Errorf("%s: %v", where, err)
						continue
					}
					var kept, known []string
					aggregated := false
					promparser.Inspect(expr, func(node promparser.Node, _ []promparser.Node) error {
						switch n := node.(type) {
						case *promparser.AggregateExpr:
							aggregated = true
							kept = append(kept, n.Grouping...)
						case *promparser.VectorSelector:
							base := regexp.MustCompile(`_bucket$`).ReplaceAllString(n.Name, "")
							if _, ok := metrics[base]; !ok {
								t.Errorf("%s: no metric %q", where, n.Name)
							}
							known = append(known, labels[base]...)
						}
						return nil
					})
					for _, label := range legend.FindAllStringSubmatch(s.legend, -1) {
						switch name := label[1]; {
						case aggregated && !slices.Contains(kept, name):
							t.Errorf("%s: %q is summed away", where, name)
						case !scrapers[name] && !slices.Contains(known, name) && (len(known) > 0 || !literals[name]):
							t.Errorf("%s: no metric of it has a label %q", where, name)
						}
					}
					for _, name := range kept {
						if name != "le" && !scrapers[name] && !slices.Contains(known, name) && (len(known) > 0 || !literals[name]) {
							t.Errorf("%s: no metric of it has a label %q", where, name)
						}
					}
				}
			}
		}
	}
}
