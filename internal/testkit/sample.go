package testkit

import (
	"encoding"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// SampleNames reports each key of cfg, which is a configuration's struct, that
// the sample file at path does not name. A key or a section may stand in a
// comment: "# key = value". Those in except, keys or whole sections that end
// with a dot, are of no use to the service or described elsewhere in the file.
func SampleNames(tb testing.TB, path string, cfg any, except ...string) {
	tb.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	named := namedKeys(string(text))
	used := make(map[string]bool)
	eachKey(reflect.TypeOf(cfg), "", func(key string) {
		if named[key] {
			return
		}
		i := slices.IndexFunc(except, func(e string) bool {
			return key == e || strings.HasSuffix(e, ".") && strings.HasPrefix(key, e)
		})
		if i < 0 {
			tb.Errorf("%s does not name %s", path, key)
			return
		}
		used[except[i]] = true
	})
	for _, e := range except {
		if !used[e] {
			tb.Errorf("%s names all of %s", path, e)
		}
	}
}

var (
	sectionLine = regexp.MustCompile(`^(?:# ?)?\[{1,2}([a-z0-9_.]+)\]{1,2}\s*(?:#.*)?$`)
	keyLine     = regexp.MustCompile(`^(?:# ?)?\s*([a-z0-9_.]+)\s*= *\S`)
)

// namedKeys returns the keys that a TOML text names, with their sections.
func namedKeys(text string) map[string]bool {
	named := make(map[string]bool)
	section := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if m := sectionLine.FindStringSubmatch(line); m != nil {
			section = m[1] + "."
			named[m[1]] = true
		} else if m := keyLine.FindStringSubmatch(line); m != nil {
			named[section+m[1]] = true
		}
	}
	return named
}

// eachKey calls found for every key of a struct that stands for TOML; elements of lists have the keys of their list's
// section.
func eachKey(t reflect.Type, prefix string, found func(key string)) {
	for i := range t.NumField() {
		field := t.Field(i)
		key, _, _ := strings.Cut(field.Tag.Get("toml"), ",")
		of := field.Type
		for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
			of = of.Elem()
		}
		section := of.Kind() == reflect.Struct && !reflect.PointerTo(of).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
		switch {
		case field.Anonymous && key == "" && section:
			eachKey(of, prefix, found)
		case key == "" || key == "-":
		case section:
			eachKey(of, prefix+key+".", found)
		default:
			found(prefix + key)
		}
	}
}
