package check

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	promparser "github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"go.yaml.in/yaml/v3"
)

var promQL = promparser.NewParser(promparser.Options{})

func alerts(t *testing.T) []rulefmt.Rule {
	t.Helper()
	file, errs := rulefmt.ParseFile(filepath.Join(root, "deploy/prometheus/alerts.yml"), false, model.LegacyValidation, promQL, slog.Default())
	for _, err := range errs {
		t.Error(err)
	}
	if file == nil {
		t.FailNow()
	}
	var rules []rulefmt.Rule
	for _, group := range file.Groups {
		rules = append(rules, group.Rules...)
	}
	return rules
}

// scraped reads a scrape configuration: targets by job. Prometheus' own reader of this file would bring the libraries
// of every cloud; what the file has is little and read strictly. What is found by a name counts as what it names.
func scraped(t *testing.T, name string) map[string][]string {
	t.Helper()
	type static []struct{ Targets []string }
	var config struct {
		Global struct {
			ScrapeInterval     model.Duration `yaml:"scrape_interval"`
			EvaluationInterval model.Duration `yaml:"evaluation_interval"`
		}
		RuleFiles []string `yaml:"rule_files"`
		Alerting  struct {
			Alertmanagers []struct {
				StaticConfigs static `yaml:"static_configs"`
			}
		}
		ScrapeConfigs []struct {
			JobName       string `yaml:"job_name"`
			StaticConfigs static `yaml:"static_configs"`
			DNSSDConfigs  []struct {
				Names []string
				Type  string
				Port  int
			} `yaml:"dns_sd_configs"`
		} `yaml:"scrape_configs"`
	}
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	commentedOut := regexp.MustCompile(`(?m)^  # (- \{job_name)`)
	decoder := yaml.NewDecoder(strings.NewReader(commentedOut.ReplaceAllString(string(text), "  $1")))
	decoder.KnownFields(true)
	if err := decoder.Decode(&config); err != nil {
		t.Fatal(err)
	}
	for _, rules := range config.RuleFiles {
		if _, err := os.Stat(filepath.Join(root, "deploy/prometheus", rules)); err != nil {
			t.Error(err)
		}
	}
	targets := map[string][]string{}
	for _, job := range config.ScrapeConfigs {
		for _, s := range job.StaticConfigs {
			targets[job.JobName] = append(targets[job.JobName], s.Targets...)
		}
		for _, d := range job.DNSSDConfigs {
			for _, host := range d.Names {
				targets[job.JobName] = append(targets[job.JobName], fmt.Sprintf("%s:%d", host, d.Port))
			}
		}
	}
	return targets
}

// TestScrapeConfig compares the targets with the admin ports of the sample configurations, and those of the compose
// file with its services.
func TestScrapeConfig(t *testing.T) {
	want := map[string][]string{}
	admin := regexp.MustCompile(`(?m)^admin = "(.+)"`)
	for _, program := range programs(t) {
		sample, err := os.ReadFile(filepath.Join(root, "configs", program+".toml"))
		if address := admin.FindSubmatch(sample); err == nil && address != nil {
			want[program] = []string{string(address[1])}
		}
	}
	if got := scraped(t, "deploy/prometheus/prometheus.yml"); !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("prometheus.yml scrapes\n%v, configs/ have\n%v", got, want)
	}

	clear(want)
	project := everything(t)
	for name, program := range ofOurs(project) {
		if listen := project.Services[name].Environment["BTCPOOL_ADMIN"]; listen != nil {
			_, port, _ := strings.Cut(*listen, ":")
			want[program] = append(want[program], name+":"+port)
		}
	}
	got := scraped(t, "deploy/compose/prometheus.yml")
	for _, all := range []map[string][]string{want, got} {
		for _, names := range all {
			slices.Sort(names)
		}
	}
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("compose/prometheus.yml scrapes\n%v, docker-compose.yml has\n%v", got, want)
	}
}

// namedByUser returns how the metrics begin of a package that is told whose they are: users.New("service", …).
func namedByUser(t *testing.T, files []string) (prefixes []string) {
	t.Helper()
	call := regexp.MustCompile(`users\.New\("([a-z]+)"`)
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range call.FindAllSubmatch(text, -1) {
			prefixes = append(prefixes, "btcpool_"+string(found[1])+"_")
		}
	}
	return prefixes
}

// TestAlertsUseWhatExists finds each metric of an expression among those that the code registers, and each label and
// its value among the string literals of the code.
func TestAlertsUseWhatExists(t *testing.T) {
	metrics, literals := registered(t)
	anyOfOurs := regexp.MustCompile(`btcpool_[a-z_]+`)
	for _, rule := range alerts(t) {
		if rule.Labels["severity"] != "page" && rule.Labels["severity"] != "ticket" {
			t.Errorf("%s: severity is neither page nor ticket", rule.Alert)
		}
		if rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
			t.Errorf("%s: no summary or description", rule.Alert)
		}
		for _, name := range anyOfOurs.FindAllString(rule.Annotations["description"], -1) {
			if !metrics[name] {
				t.Errorf("%s: the description names the metric %q, which does not exist", rule.Alert, name)
			}
		}
		expr, err := promQL.ParseExpr(rule.Expr)
		if err != nil {
			t.Fatal(err)
		}
		promparser.Inspect(expr, func(node promparser.Node, _ []promparser.Node) error {
			selector, ok := node.(*promparser.VectorSelector)
			if !ok {
				return nil
			}
			ours, ok := metrics[strings.TrimSuffix(selector.Name, "_bucket")]
			if !ok {
				t.Errorf("%s: no metric %q", rule.Alert, selector.Name)
			}
			if !ours {
				return nil
			}
			for _, m := range selector.LabelMatchers {
				if m.Name == model.MetricNameLabel {
					continue
				}
				if m.Name == model.JobLabel { // the scraper's: a service
					for _, service := range strings.Split(m.Value, "|") {
						if _, err := os.Stat(filepath.Join("../../cmd", service)); err != nil {
							t.Errorf("%s: %s{%s}: %v", rule.Alert, selector.Name, m, err)
						}
					}
					continue
				}
				for _, text := range append(strings.Split(m.Value, "|"), m.Name) {
					if !literals[text] {
						t.Errorf("%s: %s{%s}: nothing in the code is called %q", rule.Alert, selector.Name, m, text)
					}
				}
			}
			return nil
		})
	}
}

// registered returns the metrics that the services can register, false for those of every process and of Prometheus
// itself, and all string literals of the code. A metric is registered in a file that imports client_golang, under a
// literal, or under the file's prefix with a literal that is a Name or the first argument of a helper that adds the
// prefix.
func registered(t *testing.T) (metrics, literals map[string]bool) {
	t.Helper()
	metrics = map[string]bool{"up": false}
	literals = map[string]bool{}
	prefix := regexp.MustCompile(`^btcpool_[a-z]+_$`)
	files, err := filepath.Glob(filepath.Join(root, "*/*.go"))
	if err != nil {
		t.Fatal(err)
	}
	internal, err := filepath.Glob(filepath.Join(root, "internal/*/*.go"))
	if err != nil {
		t.Fatal(err)
	}
	named := namedByUser(t, files)
	for _, name := range append(files, internal...) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		var prefixes, names []string
		ast.Inspect(file, func(node ast.Node) bool {
			switch n := node.(type) {
			case *ast.BasicLit:
				text := literal(n)
				literals[text] = true
				if prefix.MatchString(text) {
					prefixes = append(prefixes, text)
				}
			case *ast.ValueSpec: // const namespace, subsystem = "btcpool", "service"
				if len(n.Values) == 2 && literal(n.Values[0]) == "btcpool" {
					prefixes = append(prefixes, "btcpool_"+literal(n.Values[1])+"_")
				}
			case *ast.CallExpr:
				if len(n.Args) > 0 {
					names = append(names, literal(n.Args[0]))
				}
				if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Metrics" && len(n.Args) == 2 { // telemetry.Metrics(reg, "service")
					prefixes = append(prefixes, "btcpool_"+literal(n.Args[1])+"_")
					if _, given := n.Args[1].(*ast.Ident); given {
						prefixes = append(prefixes, named...)
					}
				}
			case *ast.KeyValueExpr:
				if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Name" {
					names = append(names, literal(n.Value))
				}
			}
			return true
		})
		if !slices.ContainsFunc(file.Imports, func(i *ast.ImportSpec) bool {
			return literal(i.Path) == "github.com/prometheus/client_golang/prometheus"
		}) {
			continue
		}
		for _, n := range names {
			if strings.HasPrefix(n, "btcpool_") {
				metrics[n] = true
			}
			for _, p := range prefixes {
				if n != "" {
					metrics[p+n] = true
				}
			}
		}
	}
	everyProcess := prometheus.NewRegistry()
	everyProcess.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	families, err := everyProcess.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		metrics[f.GetName()] = false
	}
	return metrics, literals
}

// literal is the text of a string literal, "" for any other expression.
func literal(e ast.Expr) string {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return ""
	}
	text, _ := strconv.Unquote(lit.Value)
	return text
}

// TestAlertsFire gives every alert series under which it must fire, and such under which it must not: in the notation
// of Prometheus' rule tests, a sample a minute, judged at the last one's time, wherever its for begins.
func TestAlertsFire(t *testing.T) {
	tests := map[string]struct{ fire, quiet [][]string }{
		"ServiceDown": {
			fire:  [][]string{{`up{job="sserver"} 1x5 0`}},
			quiet: [][]string{{`up{job="sserver"} 1x5`, `up{job="slparser"} 0x5`}},
		},
		"FarmWithoutPool": {
			fire: [][]string{
				{`btcpool_agentproxy_miners_waiting 0x5 3x5`},
				{`btcpool_ready{job="agentproxy"} 0x5`},
			},
			quiet: [][]string{{`btcpool_agentproxy_miners_waiting 0x5`, `btcpool_ready{job="agentproxy"} 1x5`}},
		},
		"FarmSharesParted": {
			fire: [][]string{{`btcpool_agentproxy_answers_total{status="0"} 0+1000x20`, `btcpool_agentproxy_verdicts_total{status="0"} 0+900x20`}},
			quiet: [][]string{{
				`btcpool_agentproxy_answers_total{status="0"} 0+1000x20`, `btcpool_agentproxy_answers_total{status="21"} 0+50x20`,
				`btcpool_agentproxy_verdicts_total{status="0"} 0+999x20`, `btcpool_agentproxy_verdicts_total{status="37"} 0+50x20`,
			}},
		},
		"FarmSharesLost": {
			fire:  [][]string{{`btcpool_agentproxy_shares_lost_total{reason="no link"} 0+30x20`, `btcpool_agentproxy_answers_total{status="0"} 0+1000x20`}},
			quiet: [][]string{{`btcpool_agentproxy_shares_lost_total{reason="no link"} 0+5x20`, `btcpool_agentproxy_answers_total{status="0"} 0+1000x20`}},
		},
		"FarmWorkRefused": {
			fire:  [][]string{{`btcpool_agentproxy_jobs_refused_total 0x5 1x5`}},
			quiet: [][]string{{`btcpool_agentproxy_jobs_refused_total 3x10`}},
		},
		"ConfigNotUsed": {
			fire:  [][]string{{`btcpool_config_last_reload_successful 1 0x5`}},
			quiet: [][]string{{`btcpool_config_last_reload_successful 0 1x5`}},
		},
		"UpgradeFailed": {
			fire:  [][]string{{`btcpool_upgrades_failed_total{job="sserver"} 0x5 1x5`}},
			quiet: [][]string{{`btcpool_upgrades_failed_total{job="sserver"} 3x10`}},
		},
		"FarmMachinesSilent": {
			fire: [][]string{
				{`btcpool_agentproxy_silent_miners{state="connected"} 0x5 20x10`, `btcpool_agentproxy_silent_miners{state="gone"} 5x15`, `btcpool_agentproxy_miners 1000x15`},
				{`btcpool_agentproxy_silent_miners{state="gone"} 30x10`, `btcpool_agentproxy_miners 0x10`},
			},
			quiet: [][]string{{`btcpool_agentproxy_silent_miners{state="connected"} 20x10`, `btcpool_agentproxy_miners 1000x10`}},
		},
		"ProgramFault": {
			fire: [][]string{
				{`btcpool_sserver_panics_total 0x30 1x29`},
				{`process_start_time_seconds 0x10 600x10 1200x10 1800x10`},
			},
			quiet: [][]string{{`btcpool_sserver_panics_total 1x60`, `process_start_time_seconds 0x30 1800x29`}},
		},
		"ClockOff": {
			fire: [][]string{
				{`btcpool_clock_timestamp_seconds 3600+60x5`},
				{`btcpool_clock_timestamp_seconds -6+60x5`},
				{`btcpool_bus_write_timeless_total{topic="BtcShare"} 0+1x10`},
			},
			quiet: [][]string{{`btcpool_clock_timestamp_seconds 4+60x5`, `btcpool_bus_write_timeless_total{topic="BtcShare"} 9x10`}},
		},
		"LimitNear": {
			fire: [][]string{
				{`process_open_fds 900x5`, `process_max_fds 1000x5`},
				{`btcpool_sserver_connections_refused_total{reason="limit"} 0+1x5`},
			},
			quiet: [][]string{{
				`process_open_fds 500x5`, `process_max_fds 1000x5`,
				`btcpool_sserver_connections_refused_total{reason="limit"} 7x5`,
				`btcpool_sserver_connections_refused_total{reason="banned"} 0+9x5`,
			}},
		},
		"TemplatesOld": {
			fire: [][]string{
				{`btcpool_gbtmaker_last_template_timestamp_seconds 0x5`},
				{`btcpool_gbtmaker_node_up{node="a"} 0x5`, `btcpool_gbtmaker_node_up{node="b"} 0x5`},
			},
			quiet: [][]string{{
				`btcpool_gbtmaker_last_template_timestamp_seconds{instance="a"} 0x5`,
				`btcpool_gbtmaker_last_template_timestamp_seconds{instance="b"} 0+59x5`,
				`btcpool_gbtmaker_node_up{node="a"} 0x5`, `btcpool_gbtmaker_node_up{node="b"} 1x5`,
			}},
		},
		"NodeAway": {
			fire: [][]string{
				{`btcpool_gbtmaker_node_up{node="a"} 0x5`},
				{`btcpool_gbtmaker_node_height_blocks{node="a"} 7x5`, `btcpool_gbtmaker_node_height_blocks{node="b"} 8x5`},
			},
			quiet: [][]string{{
				`btcpool_gbtmaker_node_up{node="a"} 1x5`,
				`btcpool_gbtmaker_node_height_blocks{node="a"} 8x5`, `btcpool_gbtmaker_node_height_blocks{node="b"} 8x5`,
			}},
		},
		"NodesDisagree": {
			fire: [][]string{{`btcpool_gbtmaker_node_disagrees_since_block{node="1"} 0 99x5`, `btcpool_gbtmaker_node_height_blocks{node="1"} 100x5`}},
			quiet: [][]string{{
				`btcpool_gbtmaker_node_disagrees_since_block{node="0"} 0x5`, `btcpool_gbtmaker_node_height_blocks{node="0"} 100x5`,
				`btcpool_gbtmaker_node_disagrees_since_block{node="1"} 100x5`, `btcpool_gbtmaker_node_height_blocks{node="1"} 100x5`,
			}},
		},
		"TemplatesDisagree": {
			fire:  [][]string{{`btcpool_jobmaker_templates_disagree_since_block 0x30 976500x29`, `btcpool_jobmaker_height 976501x30 976502x29`}},
			quiet: [][]string{{`btcpool_jobmaker_templates_disagree_since_block 0x30 976500x29`, `btcpool_jobmaker_height 976501x60`}, {`btcpool_jobmaker_templates_disagree_since_block 0x60`, `btcpool_jobmaker_height 976502x60`}},
		},
		"OnlyLessWork": {
			fire:  [][]string{{`btcpool_gbtmaker_only_less_work 0x30 1x29`}},
			quiet: [][]string{{`btcpool_gbtmaker_only_less_work 0x30 1 1 0x28`}},
		},
		"NoBlockSeen": {
			fire: [][]string{{`btcpool_gbtmaker_template_height_blocks 7x130`}},
			quiet: [][]string{
				{`btcpool_gbtmaker_template_height_blocks 7x60 8x70`},
				{`btcpool_gbtmaker_template_height_blocks 7x60`},
			},
		},
		"JobsOld": {
			fire: [][]string{
				{`btcpool_sserver_job_age_seconds 10x5 70`},
				{`btcpool_sserver_job_age_seconds -2928`},
				{`btcpool_sserver_job_age_seconds 0x5`, `btcpool_sserver_job_height 0x5`},
				{`btcpool_jobmaker_since_last_job_seconds 61`},
			},
			quiet: [][]string{{`btcpool_sserver_job_age_seconds 20x5`, `btcpool_sserver_job_height 7x5`, `btcpool_jobmaker_since_last_job_seconds 0`}},
		},
		"ServerIDLost": {
			fire:  [][]string{{`btcpool_registry_connected 1 0`}, {`btcpool_registry_id 7 0`}},
			quiet: [][]string{{`btcpool_registry_connected 1`, `btcpool_registry_id 7`, `btcpool_registry_leader 0`}},
		},
		"ServerIDTwice": {
			fire:  [][]string{{`btcpool_sserver_twins 0 1`}},
			quiet: [][]string{{`btcpool_sserver_twins 1 0`}},
		},
		"MergedMiningAway": {
			fire: [][]string{
				{`btcpool_auxmaker_chain_up{chain="namecoin"} 0`},
				{`btcpool_auxmaker_last_message_timestamp_seconds{topic="aux"} 0x5`},
				{`btcpool_blkmaker_merged_blocks_total{result="rejected"} 0x30 1x29`},
			},
			quiet: [][]string{{
				`btcpool_auxmaker_chain_up{chain="namecoin"} 1`, `btcpool_auxmaker_last_message_timestamp_seconds{topic="aux"} 0+60x5`,
				`btcpool_blkmaker_merged_blocks_total{result="accepted"} 0x30 1x29`,
			}},
		},
		"ChainNotMined": {
			fire:  [][]string{{`btcpool_sserver_chain_ready{chain="btc"} 1x5`, `btcpool_sserver_chain_ready{chain="bch"} 0x5`}},
			quiet: [][]string{{`btcpool_sserver_chain_ready{chain="btc"} 1x5`, `btcpool_sserver_chain_ready{chain="bch"} 1 0 1x5`}},
		},
		"UsersOnAnotherChain": {
			fire:  [][]string{{`btcpool_sserver_users_waiting 1x30`}},
			quiet: [][]string{{`btcpool_sserver_users_waiting 3x10 0x20`}},
		},
		"SubPoolMissing": {
			fire:  [][]string{{`btcpool_sserver_sub_pool_missing_total{of="server"} 0+1x20`}},
			quiet: [][]string{{`btcpool_sserver_sub_pool_missing_total{of="user"} 3x20`}},
		},
		"SwitchesWait": {
			fire:  [][]string{{`btcpool_switchapi_oldest_due_seconds 61+60x5`}},
			quiet: [][]string{{`btcpool_switchapi_oldest_due_seconds 59x5`}},
		},
		"SwitchesNotAccepted": {
			fire:  [][]string{{`btcpool_ready{job="switchapi"} 0`}, {`btcpool_switchapi_journal_damaged_total 0x30 1x29`}},
			quiet: [][]string{{`btcpool_ready{job="switchapi"} 1`, `btcpool_switchapi_journal_damaged_total 0`}},
		},
		"AutoChainStands": {
			fire: [][]string{
				{`btcpool_switchapi_decisions_total{job="switchapi",reason="fail safe"} 0+1x15`},
				{`btcpool_switchapi_last_command_timestamp_seconds{job="switchapi"} 60x20`},
			},
			quiet: [][]string{{
				`btcpool_switchapi_decisions_total{job="switchapi",reason="best"} 0+1x15`,
				`btcpool_switchapi_last_command_timestamp_seconds{job="switchapi",instance="a"} 0+60x60`,
				`btcpool_switchapi_last_command_timestamp_seconds{job="switchapi",instance="standby"} 60x60`,
			}, {`btcpool_switchapi_last_command_timestamp_seconds{job="switchapi"} 0x60`}},
		},
		"UserSystemAway": {
			fire: [][]string{
				{`btcpool_switchapi_pulls_total{source="map",result="failed"} 0+1x30`, `btcpool_switchapi_pulls_total{source="map",result="ok"} 5x30`},
				{`btcpool_switchapi_user_readings_total{list="api-1",result="failed"} 0+6x30`, `btcpool_switchapi_user_readings_total{list="api-1",result="ok"} 5x30`},
			},
			quiet: [][]string{{`btcpool_switchapi_pulls_total{source="map",result="failed"} 0+1x30`, `btcpool_switchapi_pulls_total{source="map",result="ok"} 0+1x30`}},
		},
		"RegistrationsFail": {
			fire:  [][]string{{`btcpool_switchapi_registrations_total{result="late"} 0+1x30`, `btcpool_switchapi_registrations_total{result="registered"} 7x30`}},
			quiet: [][]string{{`btcpool_switchapi_registrations_total{result="late"} 0+1x30`, `btcpool_switchapi_registrations_total{result="registered"} 0+2x30`}},
		},
		"SwitchAPIStrangers": {
			fire:  [][]string{{`btcpool_switchapi_unauthorized_total 0+20x30`}},
			quiet: [][]string{{`btcpool_switchapi_unauthorized_total 0+5x30`}},
		},
		"SwitchLogsNotWritten": {
			fire:  [][]string{{`btcpool_switchapi_unlogged_total 0x30 1x29`}},
			quiet: [][]string{{`btcpool_switchapi_unlogged_total 7x60`}},
		},
		"ChainWithoutServer": {
			fire:  [][]string{{`btcpool_switcher_server_up{chain="bch",server="a"} 0x5`, `btcpool_switcher_server_up{chain="bch",server="b"} 0x5`}},
			quiet: [][]string{{`btcpool_switcher_server_up{chain="bch",server="a"} 0x5`, `btcpool_switcher_server_up{chain="bch",server="b"} 1x5`}},
		},
		"UserChainsUnknown": {
			fire:  [][]string{{`btcpool_chainwatch_connected 0x15`}},
			quiet: [][]string{{`btcpool_chainwatch_connected 0x4 1x10`}},
		},
		"UserChainsNotKept": {
			fire:  [][]string{{`btcpool_chainwatch_snapshot_age_seconds 0+60x30`, `btcpool_chainwatch_connected 1x30`}},
			quiet: [][]string{{`btcpool_chainwatch_snapshot_age_seconds 0+60x30`, `btcpool_chainwatch_connected 0x30`}},
		},
		"MinersNotSwitched": {
			fire: [][]string{
				{`btcpool_switcher_switches_failed_total{chain="bch",result="refused"} 0+2x30`}, {`btcpool_switcher_unknown_chain_total 0x20 1x9`},
			},
			quiet: [][]string{{`btcpool_switcher_switches_failed_total{chain="bch",result="failed"} 0+1x30`, `btcpool_switcher_unknown_chain_total 3x30`}},
		},
		"ExtraNonceUnfit": {
			fire:  [][]string{{`btcpool_switcher_extranonce_unfit_total{chain="bch"} 0x20 1x9`}},
			quiet: [][]string{{`btcpool_switcher_extranonce_unfit_total{chain="bch"} 1x30`}},
		},
		"KafkaAway": {
			fire:  [][]string{{`btcpool_bus_write_errors_total{topic="BtcShare"} 0+60x5`}, {`btcpool_bus_read_errors_total{topic="BtcJob"} 0+60x5`}},
			quiet: [][]string{{`btcpool_bus_write_errors_total{topic="BtcShare"} 9x5`, `btcpool_bus_read_errors_total{topic="BtcJob"} 9x5`}},
		},
		"UnreadExpired": {
			fire: [][]string{
				{`btcpool_bus_read_skipped_total{topic="BtcShare"} 0x30 7x29`},
				{`btcpool_bus_read_skipped_total{topic="BtcShare"} 7x29`}, // by a start
			},
			quiet: [][]string{{`btcpool_bus_read_skipped_total{topic="BtcShare"} 7x90`}},
		},
		"TopicLostRecords": {
			fire: [][]string{
				{`btcpool_bus_read_rewinds_total{topic="BtcShare"} 0x30 1x29`},
				{`btcpool_bus_read_rewinds_total{topic="BtcShare"} 1x29`},
			},
			quiet: [][]string{{`btcpool_bus_read_rewinds_total{topic="BtcShare"} 1x90`}},
		},
		"MessagesDropped": {
			fire: [][]string{
				{`btcpool_sharelogger_shares_dropped_total{reason="malformed"} 0x30 1x29`},
				{`btcpool_statshttpd_shares_dropped_total{reason="invalid"} 0x30 1x29`},
				{`btcpool_slparser_shares_dropped_total{reason="invalid"} 0x30 1x29`},
				{`btcpool_blkmaker_invalid_messages_total{topic="BtcSolvedShare"} 0x30 1x29`},
			},
			quiet: [][]string{{
				`btcpool_sharelogger_shares_dropped_total{reason="repeated"} 0+9x60`, `btcpool_sharelogger_shares_dropped_total{reason="invalid"} 1x60`,
				`btcpool_statshttpd_shares_dropped_total{reason="old"} 0+9x60`, `btcpool_slparser_shares_dropped_total{reason="other_user"} 0+9x60`, `btcpool_blkmaker_invalid_messages_total 3x60`,
			}},
		},
		"SpoolFilling": {
			fire: [][]string{
				{`btcpool_spool_oldest_seconds{spool="shares"} 301`},
				{`btcpool_spool_depth_bytes{spool="shares"} 3e9`},
				{`btcpool_spool_full_total{spool="shares"} 0+5x5`},
				{`btcpool_spool_write_errors_total{spool="shares"} 0+1x5`},
			},
			quiet: [][]string{{
				`btcpool_spool_oldest_seconds 1`, `btcpool_spool_depth_bytes 1e6`,
				`btcpool_spool_full_total 9x5`, `btcpool_spool_write_errors_total 9x5`,
			}},
		},
		"SpoolDamaged": {
			fire: [][]string{
				{`btcpool_spool_lost_bytes_total{spool="shares"} 0x30 100x29`},
				{`btcpool_spool_lost_bytes_total{spool="shares"} 100x29`}, // found when it was opened
			},
			quiet: [][]string{{`btcpool_spool_lost_bytes_total{spool="shares"} 0x60`}, {`btcpool_spool_lost_bytes_total{spool="shares"} 100x90`}},
		},
		"NoAcceptedShares": {
			fire: [][]string{{`btcpool_sserver_shares_total{code="0"} 9x5`, `btcpool_sserver_shares_total{code="37"} 0+9x5`, `btcpool_sserver_sessions{state="authorized"} 1x5`}},
			quiet: [][]string{
				{`btcpool_sserver_shares_total{code="0"} 0+1x5`, `btcpool_sserver_sessions{state="authorized"} 1x5`},
				{`btcpool_sserver_shares_total{code="0"} 9x5`, `btcpool_sserver_sessions{state="authorized"} 0x5`, `btcpool_sserver_sessions{state="connected"} 5x5`},
			},
		},
		"MinersLeft": {
			fire: [][]string{{`btcpool_sserver_sessions{state="authorized",instance="a"} 30x10 5x10`, `btcpool_sserver_sessions{state="authorized",instance="b"} 30x10 5x10`}},
			quiet: [][]string{
				{`btcpool_sserver_sessions{state="authorized",instance="a"} 30x10 5x10`, `btcpool_sserver_sessions{state="authorized",instance="b"} 30x10 55x10`},
				{`btcpool_sserver_sessions{state="authorized"} 15x10 5x10`},
			},
		},
		"SharesRejected": {
			fire:  [][]string{{`btcpool_sserver_shares_total{code="0"} 0+90x20`, `btcpool_sserver_shares_total{code="37"} 0+10x20`}},
			quiet: [][]string{{`btcpool_sserver_shares_total{code="0"} 0+99x20`, `btcpool_sserver_shares_total{code="stale"} 0+20x20`, `btcpool_sserver_shares_total{code="37"} 0+1x20`}},
		},
		"AnswersSlow": {
			fire:  [][]string{{`btcpool_sserver_answer_seconds_bucket{le="0.25"} 0+95x5`, `btcpool_sserver_answer_seconds_bucket{le="1"} 0+100x5`, `btcpool_sserver_answer_seconds_bucket{le="+Inf"} 0+100x5`}},
			quiet: [][]string{{`btcpool_sserver_answer_seconds_bucket{le="0.25"} 0+100x5`, `btcpool_sserver_answer_seconds_bucket{le="1"} 0+100x5`, `btcpool_sserver_answer_seconds_bucket{le="+Inf"} 0+100x5`}},
		},
		"WorkersNotShown": {
			fire: [][]string{
				{`btcpool_statshttpd_shares_dropped_total{reason="workers_full"} 0+1x20`}, {`btcpool_statshttpd_waiting_given_up_total 0+1x20`},
			},
			quiet: [][]string{{`btcpool_statshttpd_shares_dropped_total{reason="duplicate"} 0+1x20`, `btcpool_statshttpd_waiting_given_up_total 7x20`}},
		},
		"EventsDropped": {
			fire:  [][]string{{`btcpool_sserver_events_dropped_total 0x20 1x20`}},
			quiet: [][]string{{`btcpool_sserver_events_dropped_total 7x60`}},
		},
		"NotificationsFailing": {
			fire: [][]string{
				{`btcpool_notify_oldest_waiting_seconds 901x10`},
				{`btcpool_notify_messages_total{kind="email",result="dropped"} 0x30 1x29`},
				{`btcpool_notify_untracked_conditions 7x30`},
			},
			quiet: [][]string{{
				`btcpool_notify_oldest_waiting_seconds 30x10`, `btcpool_notify_messages_total{kind="email",result="dropped"} 1x90`,
				`btcpool_notify_messages_total{kind="email",result="failed"} 0+1x90`, `btcpool_notify_untracked_conditions 7x3 0x86`,
			}},
		},
		"DashboardCrowded": {
			fire:  [][]string{{`btcpool_statshttpd_http_connections_crowded_out_total 0+1x30`}},
			quiet: [][]string{{`btcpool_statshttpd_http_connections_crowded_out_total 0 7x30`}},
		},
		"RedisStale": {
			fire: [][]string{{`btcpool_statshttpd_redis_writes_total{result="failed"} 0+1x30`, `btcpool_statshttpd_redis_writes_total{result="ok"} 9x30`}},
			quiet: [][]string{
				{`btcpool_statshttpd_redis_writes_total{result="failed"} 0+1x30`, `btcpool_statshttpd_redis_writes_total{result="ok"} 0+1x30`},
				{`btcpool_statshttpd_redis_writes_total{result="failed"} 0x30`, `btcpool_statshttpd_redis_writes_total{result="ok"} 0x30`},
			},
		},
		"StatisticsBehind": {
			fire: [][]string{
				{`up{job="slparser"} 0`},
				{`btcpool_sharelogger_lag_seconds 400`},
				{`btcpool_sharelogger_file_errors_total 0+1x10`},
				{`btcpool_slparser_newest_share_timestamp_seconds 0x20`, `btcpool_sharelogger_shares_written_total{instance="a"} 0+9x20`},
			},
			quiet: [][]string{
				{`up{job="slparser"} 1`, `btcpool_sharelogger_lag_seconds 1`, `btcpool_sharelogger_file_errors_total 9x10`},
				{`btcpool_slparser_newest_share_timestamp_seconds 0x20`, `btcpool_sharelogger_shares_written_total 9x20`},
			},
		},
		"ShareLogShared": {
			fire:  [][]string{{`btcpool_sharelogger_group_commits_total{result="conflict"} 0 1x5`}},
			quiet: [][]string{{`btcpool_sharelogger_group_commits_total{result="conflict"} 1x5`, `btcpool_sharelogger_group_commits_total{result="ok"} 0+1x5`}},
		},
		"ShareLogOffsetNotKept": {
			fire: [][]string{{`btcpool_sharelogger_group_commits_total{result="failed"} 0+1x5`, `btcpool_sharelogger_group_commits_total{result="ok"} 9x5`}},
			quiet: [][]string{
				{`btcpool_sharelogger_group_commits_total{result="failed"} 0 1x5`, `btcpool_sharelogger_group_commits_total{result="ok"} 0+1x5`},
				{`btcpool_sharelogger_group_commits_total{result="failed"} 0x5`, `btcpool_sharelogger_group_commits_total{result="ok"} 0x5`},
			},
		},
		"DaysNotSealed": {
			fire:  [][]string{{`btcpool_sharelogger_days_unsealed 1`}},
			quiet: [][]string{{`btcpool_sharelogger_days_unsealed 0x5 1x20 0x300`}},
		},
		"ShareLogDamaged": {
			fire: [][]string{
				{`btcpool_slparser_damaged_bytes 233`},
				{`btcpool_slparser_torn_bytes 17x20`},
				{`btcpool_slparser_days_short 1`},
				{`btcpool_sharelogger_file_gaps 1`},
			},
			quiet: [][]string{{
				`btcpool_slparser_damaged_bytes 0`, `btcpool_slparser_torn_bytes 0x5 17 0x5 17 0x20`, `btcpool_slparser_days_short 0`,
				`btcpool_sharelogger_file_gaps 0`,
			}},
		},
		"LateShares": {
			fire: [][]string{
				{`btcpool_slparser_late_files_total 0x5 2x30`},
				{`btcpool_slparser_days_waiting 3`},
				{`btcpool_slparser_late_files_total 2x30`, `process_start_time_seconds 0x30`},
			},
			quiet: [][]string{{
				`btcpool_slparser_late_files_total 4x30`, `btcpool_slparser_days_waiting 0x3 1 0x20`, `process_start_time_seconds -9999x30`,
			}},
		},
		"CheckpointNotKept": {
			fire: [][]string{
				{`btcpool_statshttpd_checkpoints_total{result="failed"} 0 1x5`},
				{`btcpool_statshttpd_checkpoints_unused_total{reason="damaged"} 1x5`, `process_start_time_seconds 0x5`},
			},
			quiet: [][]string{{
				`btcpool_statshttpd_checkpoints_total{result="failed"} 2x40`, `btcpool_statshttpd_checkpoints_total{result="ok"} 0+1x40`,
				`btcpool_statshttpd_checkpoints_unused_total{reason="age"} 1x40`, `btcpool_statshttpd_checkpoints_unused_total{reason="damaged"} 1x40`,
				`process_start_time_seconds -9999x40`,
			}},
		},
		"DatabaseAway": {
			fire: [][]string{
				{`btcpool_slparser_flush_failures_total 0+1x5`},
				{`btcpool_statshttpd_flushes_total{result="failed"} 0+1x5`},
				{`btcpool_sserver_user_readings_total{result="failed"} 0+1x5`},
				{`btcpool_statshttpd_hours_failed_total 0+1x5`},
			},
			quiet: [][]string{{
				`btcpool_slparser_flush_failures_total 9x5`, `btcpool_statshttpd_flushes_total{result="ok"} 0+1x5`,
				`btcpool_sserver_user_readings_total{result="ok"} 0+1x5`, `btcpool_statshttpd_hours_failed_total 3x5`,
			}},
		},
		"NotReady": {
			fire:  [][]string{{`btcpool_ready{job="sserver"} 1 0x5`}},
			quiet: [][]string{{`btcpool_ready{job="sserver"} 1x5`, `btcpool_ready{job="slparser"} 0x5`}},
		},
		"FoundBlockWithoutAnswer": {
			fire: [][]string{
				{`btcpool_sserver_solved_total 0x10 1x5`, `btcpool_blkmaker_arrivals_total{kind="block",way="kafka"} 0x15`},
				{
					`btcpool_blkmaker_arrivals_total{kind="block",way="kafka"} 3x5`, `btcpool_blkmaker_arrivals_total{kind="block",way="direct"} 2x5`,
					`btcpool_blkmaker_solved_shares_total{result="accepted"} 4x5`,
				},
			},
			quiet: [][]string{{
				`btcpool_sserver_solved_total 0x10 1x5`,
				`btcpool_blkmaker_arrivals_total{instance="a",kind="block",way="kafka"} 0x15`,
				`btcpool_blkmaker_arrivals_total{instance="a",kind="block",way="direct"} 0x10 1x5`,
				`btcpool_blkmaker_arrivals_total{instance="a",kind="aux",way="kafka"} 0x10 5x5`,
				`btcpool_blkmaker_solved_shares_total{instance="a",result="rejected"} 0x10 1x5`,
			}},
		},
		"HandoverBroken": {
			fire:  [][]string{{`btcpool_handover_up{url="http://b:8300/solved"} 0x5`}},
			quiet: [][]string{{`btcpool_handover_up{url="http://b:8300/solved"} 1x5`}},
		},
		"FoundBlockLost": {
			fire:  [][]string{{`btcpool_blkmaker_solved_shares_total{result="rejected"} 0x30 1x29`}, {`btcpool_blkmaker_disk_errors_total 0x30 1x29`}},
			quiet: [][]string{{`btcpool_blkmaker_solved_shares_total{result="accepted"} 0x30 1x29`, `btcpool_blkmaker_solved_shares_total{result="rejected"} 1x60`, `btcpool_blkmaker_solved_shares_total{result="recorded"} 0x30 1x29`}},
		},
		"BlockWithoutRow": {
			fire:  [][]string{{`btcpool_blkmaker_blocks_without_row 0x30 1x29`}},
			quiet: [][]string{{`btcpool_blkmaker_blocks_without_row 0x30 1 1 0x28`}},
		},
		"BlockResubmitted": {
			fire:  [][]string{{`btcpool_blkmaker_resubmitted_blocks_total 0x30 1x29`}},
			quiet: [][]string{{`btcpool_blkmaker_resubmitted_blocks_total 1x59`}},
		},
		"BlockOrphaned": {
			fire:  [][]string{{`btcpool_blkmaker_blocks{state="orphaned"} 2x30 3x29`}},
			quiet: [][]string{{`btcpool_blkmaker_blocks{state="orphaned"} 2x60`, `btcpool_blkmaker_blocks{state="confirmed"} 2x30 3x29`}},
		},
	}
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, Parser: promQL})
	for _, rule := range alerts(t) {
		test, ok := tests[rule.Alert]
		if !ok {
			t.Errorf("%s is not tested", rule.Alert)
		}
		delete(tests, rule.Alert)
		for _, series := range test.fire {
			if got := evaluate(t, engine, rule.Expr, series); len(got) == 0 {
				t.Errorf("%s does not fire for\n%s", rule.Alert, strings.Join(series, "\n"))
			}
		}
		for _, series := range test.quiet {
			if got := evaluate(t, engine, rule.Expr, series); len(got) > 0 {
				t.Errorf("%s fires with %v for\n%s", rule.Alert, got, strings.Join(series, "\n"))
			}
		}
	}
	for name := range tests {
		t.Errorf("there is no alert %s", name)
	}
}

// evaluate returns what expr is at the time of the longest series' last sample.
func evaluate(t *testing.T, engine *promql.Engine, expr string, descriptions []string) promql.Vector {
	t.Helper()
	var all []storage.Series
	var last int64
	for _, description := range descriptions {
		metric, values, err := promQL.ParseSeriesDesc(description)
		if err != nil {
			t.Fatal(err)
		}
		var samples []chunks.Sample
		for i, v := range values {
			samples = append(samples, sample{t: int64(i) * time.Minute.Milliseconds(), v: v.Value})
			last = max(last, samples[i].T())
		}
		all = append(all, storage.NewListSeries(metric, samples))
	}
	return query(t, engine, all, expr, time.UnixMilli(last))
}

// sample is a float; nothing asks for the rest of the interface.
type sample struct {
	chunks.Sample
	t int64
	v float64
}

func (s sample) T() int64                 { return s.t }
func (s sample) ST() int64                { return 0 }
func (s sample) F() float64               { return s.v }
func (s sample) Type() chunkenc.ValueType { return chunkenc.ValFloat }

// seriesSet goes through rest; it has the errors and warnings of an empty one.
type seriesSet struct {
	storage.SeriesSet
	at   storage.Series
	rest []storage.Series
}

func (s *seriesSet) At() storage.Series { return s.at }

func (s *seriesSet) Next() bool {
	if len(s.rest) == 0 {
		return false
	}
	s.at, s.rest = s.rest[0], s.rest[1:]
	return true
}
