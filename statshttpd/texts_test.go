package statshttpd

import (
	"encoding/json"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/share"
)

// messages are the texts of the pages in a language; those with forms for a number are joined.
func messages(t *testing.T, language string) map[string]string {
	t.Helper()
	text := webFile(t, "messages."+language+".js")
	_, text, _ = strings.Cut(text, "export default ")
	var raw map[string]any
	if err := json.Unmarshal([]byte(strings.TrimSuffix(strings.TrimSpace(text), ";")), &raw); err != nil {
		t.Fatalf("%s: %v", language, err)
	}
	all := make(map[string]string)
	for key, text := range raw {
		switch text := text.(type) {
		case string:
			all[key] = text
		case map[string]any:
			for _, form := range text {
				all[key] += form.(string)
			}
		}
		if strings.Count(webFile(t, "messages."+language+".js"), "\n  "+strconv.Quote(key)+":") != 1 {
			t.Errorf("%s: %s is not there once", language, key)
		}
	}
	return all
}

func webFile(t *testing.T, name string) string {
	t.Helper()
	body, err := fs.ReadFile(builtin, "web/"+name)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

var (
	textPlace  = regexp.MustCompile(`\{\w+\}`)
	textKey    = regexp.MustCompile(`"([a-z]+(?:_[a-z]+)*(?:\.[a-z0-9_]+)+|csv|measuring|none_yet)"`)
	textFamily = regexp.MustCompile("t\\(`([a-z.]+)\\.\\$")
	htmlText   = regexp.MustCompile(`>([^<>]*\pL[^<>]*)<`)
)

// TestTexts holds the languages against each other, and against the pages: each text is there in every language with the
// same places to be filled in, each one that a page wants is there, and none that no page wants.
func TestTexts(t *testing.T) {
	t.Parallel()
	english, chinese := messages(t, "en"), messages(t, "zh")
	if diff := cmp.Diff(slices.Sorted(maps.Keys(english)), slices.Sorted(maps.Keys(chinese))); diff != "" {
		t.Errorf("texts (-English +Chinese):\n%s", diff)
	}
	for key := range english {
		places := func(text string) []string {
			return slices.Compact(slices.Sorted(slices.Values(textPlace.FindAllString(text, -1))))
		}
		if diff := cmp.Diff(places(english[key]), places(chinese[key])); diff != "" {
			t.Errorf("%s: places (-English +Chinese):\n%s", key, diff)
		}
		if english[key] == "" || chinese[key] == "" {
			t.Errorf("%s is empty", key)
		}
	}

	wanted := make(map[string]bool)
	files, err := fs.Glob(builtin, "web/*.*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimPrefix(file, "web/")
		if strings.HasPrefix(name, "messages.") || !strings.HasSuffix(name, ".js") && !strings.HasSuffix(name, ".html") {
			continue
		}
		text := webFile(t, name)
		for _, m := range textKey.FindAllStringSubmatch(text, -1) {
			if !strings.HasSuffix(m[1], ".js") {
				wanted[m[1]] = true
			}
		}
		for _, m := range textFamily.FindAllStringSubmatch(text, -1) {
			for key := range english {
				if strings.HasPrefix(key, m[1]+".") {
					wanted[key] = true
				}
			}
		}
	}
	for _, status := range share.Statuses() {
		if !status.IsAccepted() {
			wanted["reason."+strconv.Itoa(int(status))] = true
		}
	}
	wanted["reason.stale"] = true
	if diff := cmp.Diff(slices.Sorted(maps.Keys(english)), slices.Sorted(maps.Keys(wanted))); diff != "" {
		t.Errorf("texts (-there +wanted):\n%s", diff)
	}

	page, noscript, _ := strings.Cut(webFile(t, "index.html"), "<noscript>")
	if !strings.Contains(noscript, `lang="en"`) || !strings.Contains(noscript, `lang="zh-Hans"`) {
		t.Error("without scripts the page does not speak both languages")
	}
	for _, m := range htmlText.FindAllStringSubmatch(page, -1) {
		if !slices.Contains([]string{"btcpool", "x"}, m[1]) {
			t.Errorf("index.html says %q by itself", m[1])
		}
	}
}
