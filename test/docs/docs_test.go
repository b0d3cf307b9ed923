// Package docs holds the documents to what the project does: each command in them is run, or held to what it names, and
// each key of a configuration is one.
package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// documents are those that tell people what to type.
func documents(t *testing.T) (paths []string) {
	t.Helper()
	for _, pattern := range []string{"README*.md", "CONTRIBUTING.md", "docs/*.md", "deploy/*.md", "deploy/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	return paths
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A command is what somebody types, in one line, without a comment.
type command struct{ file, text string }

// languages are those that blocks are in; the commands are sh.
var languages = []string{"sh", "toml", "json", "text", "promql"}

var comment = regexp.MustCompile(`\s+# .*`)

// blocks calls each with every block of the documents.
func blocks(t *testing.T, each func(file, language, text string)) {
	t.Helper()
	for _, path := range documents(t) {
		language, text := "", ""
		for line := range strings.Lines(read(t, path)) {
			mark, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
			switch {
			case fence && language == "":
				if language = mark; !slices.Contains(languages, language) {
					t.Errorf("%s: a block is in %q: say which of %q it is in", path, language, languages)
					language = "text"
				}
			case fence:
				each(filepath.Base(path), language, text)
				language, text = "", ""
			case language != "":
				text += line
			}
		}
	}
}

// commands are those of all blocks. A shell's function is one.
func commands(t *testing.T) (all []command) {
	t.Helper()
	blocks(t, func(file, language, text string) {
		if language != "sh" {
			return
		}
		text = strings.ReplaceAll(text, "\\\n", " ")
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(comment.ReplaceAllString(strings.TrimRight(line, "\n"), ""))
			for _, one := range strings.Split(line, " && ") {
				if one = strings.Join(strings.Fields(one), " "); one != "" {
					all = append(all, command{file, one})
				}
			}
		}
	})
	return all
}

// ways say what becomes of commands: run names how TestCommandsRun runs them; the others are not run here, for the
// reason why, and are held to what they name.
var ways = []struct {
	pattern  *regexp.Regexp
	run, why string
	names    func(t *testing.T, words []string)
}{
	{regexp.MustCompile(`^go run \./cmd/btcpool (-demo|-stratum \S+ -http \S+)$`), "pool", "", nil},
	{regexp.MustCompile(`^go run \./cmd/btcpool -network mainnet `), "check", "", nil},
	{regexp.MustCompile(`^minersim `), "mine", "", nil},
	{regexp.MustCompile(`^a[ (]`), "operator", "", nil},
	{regexp.MustCompile(`^sharelogger -config FILE -repair`), "day", "", nil},
	{regexp.MustCompile(`^slparser -config FILE -d `), "day", "", nil},
	{regexp.MustCompile(`^make env$`), "env", "", nil},
	{regexp.MustCompile(`^sudo make install$`), "install", "", nil},
	{regexp.MustCompile(`^make (build|test|lint|vulncheck|fuzz|bench)( |$)`), "", "what runs this test, or longer than it", makes},
	{regexp.MustCompile(`^go test `), "", "runs what else is run", tests},
	{regexp.MustCompile(`^(VERSION=\$\(deploy/version\.sh\) )?docker compose `), "", "no container engine here", composes},
	{regexp.MustCompile(`^(sudo )?systemctl `), "", "no systemd runs here; TestUnitsVerified reads the units", units},
	{regexp.MustCompile(`^sudo (systemd-sysusers|chgrp btcpool /etc/btcpool/\*\.toml)$`), "", "TestRelease does it by the packages' scripts", nil},
	{regexp.MustCompile(`^sudo dpkg -i btcpool_[0-9.]+\+\*_amd64\.deb$`), "", "TestRelease", nil},
	{regexp.MustCompile(`^btcpoolctl check$`), "", "TestSamplesFit and TestTogether of cmd/btcpoolctl", nil},
	{regexp.MustCompile(`^agentproxy\.exe -service (install -config agentproxy\.toml|start)$`), "", "Windows; TestServiceFlag reads the flags", nil},
	{regexp.MustCompile(`^duckdb -c "SELECT `), "", "TestEnginesReadSealedDays asks DuckDB as a library", nil},
	{regexp.MustCompile(`^(git pull|\$EDITOR \.env)$`), "", "of others", nil},
}

// TestCommandsAreKnown wants a way for every command, and something that every way is for.
func TestCommandsAreKnown(t *testing.T) {
	t.Parallel()
	used := make([]bool, len(ways))
	for _, c := range commands(t) {
		i := wayOf(c)
		if i < 0 {
			t.Errorf("%s: nobody has tried %q: add it to the ways that commands are tried", c.file, c.text)
			continue
		}
		used[i] = true
		if names := ways[i].names; names != nil {
			t.Run(c.text, func(t *testing.T) { names(t, strings.Fields(c.text)) })
		}
	}
	for i, is := range used {
		if !is {
			t.Errorf("no document has a command like %s", ways[i].pattern)
		}
	}
}

func wayOf(c command) int {
	for i, w := range ways {
		if w.pattern.MatchString(c.text) {
			return i
		}
	}
	return -1
}

func makes(t *testing.T, words []string) {
	for _, target := range words[1:] {
		if !strings.Contains(target, "=") && !regexp.MustCompile(`(?m)^`+target+`:`).MatchString(read(t, filepath.Join(root, "Makefile"))) {
			t.Errorf("the Makefile has no %s", target)
		}
	}
}

// goTestFlags are go test's own, with the number of words behind them.
var goTestFlags = map[string]int{"-tags": 1, "-v": 0, "-run": 1, "-timeout": 1, "-args": 0, "-count": 1, "-p": 1, "-race": 0}

func tests(t *testing.T, words []string) {
	var folder, pattern string
	var own []string
	for i := 2; i < len(words); i++ {
		word := words[i]
		switch n, known := goTestFlags[word]; {
		case word == "-run":
			pattern = strings.Trim(words[i+1], "'")
			i++
		case known:
			i += n
		case strings.HasPrefix(word, "./"):
			folder = word
		case strings.HasPrefix(word, "-"):
			own = append(own, word)
		}
	}
	if folder == "./..." {
		return
	}
	files, err := filepath.Glob(filepath.Join(root, folder, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no tests: %v", folder, err)
	}
	var source strings.Builder
	for _, file := range files {
		source.WriteString(read(t, file))
	}
	for one := range strings.SplitSeq(pattern, "|") {
		if !regexp.MustCompile(`(?m)^func \w*` + strings.Trim(one, "^$")).MatchString(source.String()) {
			t.Errorf("%s has no test like %s", folder, one)
		}
	}
	for _, flag := range own {
		if !strings.Contains(source.String(), `("`+flag[1:]+`"`) {
			t.Errorf("the tests of %s have no flag %s", folder, flag)
		}
	}
}

func composes(t *testing.T, words []string) {
	for words[0] != "docker" { // variables
		words = words[1:]
	}
	if !slices.Contains([]string{"up", "build", "ps"}, words[2]) {
		t.Errorf("%s is unknown", words[2])
	}
	for _, service := range words[3:] {
		if !strings.HasPrefix(service, "-") && !strings.Contains(read(t, filepath.Join(root, "docker-compose.yml")), "\n  "+service+":\n") {
			t.Errorf("docker-compose.yml has no %s", service)
		}
	}
}

func units(t *testing.T, words []string) {
	for _, word := range words {
		name, instances, is := strings.Cut(word, "@")
		if strings.HasSuffix(word, ".target") {
			read(t, filepath.Join(root, "deploy", "systemd", word))
		}
		if !is {
			continue
		}
		read(t, filepath.Join(root, "deploy", "systemd", name+"@.service"))
		for service := range strings.SplitSeq(strings.Trim(instances, "{}"), ",") {
			read(t, filepath.Join(root, "cmd", service, "main.go"))
		}
	}
}

// inText is a command within a line of text.
var inText = regexp.MustCompile("`(make [a-z][^`&]*)[`&]")

// TestTargetsInText holds the targets that documents name to the Makefile.
func TestTargetsInText(t *testing.T) {
	t.Parallel()
	for _, path := range documents(t) {
		for _, found := range inText.FindAllStringSubmatch(read(t, path), -1) {
			t.Run(filepath.Base(path)+" "+found[1], func(t *testing.T) { makes(t, strings.Fields(found[1])) })
		}
	}
}

// aKey is a line of a configuration.
var aKey = regexp.MustCompile(`(?m)^(?:# )?(\w+) = |^(?:# )?(\[+[\w.]+\]+)`)

// TestKeysExist holds the configurations that documents show to the samples, which have every key.
func TestKeysExist(t *testing.T) {
	t.Parallel()
	samples, err := filepath.Glob(filepath.Join(root, "configs", "*.toml"))
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, path := range samples {
		for _, found := range aKey.FindAllStringSubmatch(read(t, path), -1) {
			known[found[1]+found[2]] = true
		}
	}
	some := false
	blocks(t, func(file, language, text string) {
		if language != "toml" {
			return
		}
		some = true
		for _, found := range aKey.FindAllStringSubmatch(text, -1) {
			if key := found[1] + found[2]; !known[key] {
				t.Errorf("%s: no sample has %s", file, key)
			}
		}
	})
	if !some {
		t.Error("no document shows a configuration")
	}
}
