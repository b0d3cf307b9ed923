package check

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/rulefmt"
)

const runbookHead = `# Runbook

A section for each alert of deploy/prometheus/alerts.yml, by its name, made from that file (` + "`make runbook`" + `). Which alert to look at first
when several fire is in [operating.md](operating.md#alerts).
`

// TestRunbook holds docs/runbook.md to the alerts.
func TestRunbook(t *testing.T) {
	var page strings.Builder
	page.WriteString(runbookHead)
	for _, rule := range alerts(t) {
		section(&page, rule)
	}
	path := filepath.Join(root, "docs", "runbook.md")
	if *update {
		if err := os.WriteFile(path, []byte(page.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != page.String() {
		t.Errorf("docs/runbook.md is not what the alerts make (make runbook): %v", err)
	}
}

var (
	label    = regexp.MustCompile(`{{ *\$labels\.(\w+) *}}`)
	template = regexp.MustCompile(`{{[^}]*}}`)
)

// section is what the page says of an alert: what Alertmanager would, with names in place of what is filled in.
func section(page *strings.Builder, rule rulefmt.Rule) {
	words := func(text string) string {
		text = template.ReplaceAllString(label.ReplaceAllString(text, "‹$1›"), "‹value›")
		return strings.Join(strings.Fields(text), " ")
	}
	severity := "a ticket: in the morning"
	if rule.Labels["severity"] == "page" {
		severity = "a page: act now"
	}
	fmt.Fprintf(page, "\n## %s\n\n**%s** · %s\n\n%s\n\nFires when, for %s:\n\n```promql\n%s\n```\n", rule.Alert, words(rule.Annotations["summary"]), severity,
		words(rule.Annotations["description"]), rule.For, strings.TrimSpace(rule.Expr))
}
