package btcpool_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// licenceFile is what licences are found in.
var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|unlicense)`)

// allowed are words of licences that code may stand under which is linked into our programs, and gpl is the title of
// those that it may not.
var (
	allowed = map[string]string{
		"MIT":        "Permission is hereby granted, free of charge",
		"BSD":        "Redistribution and use in source and binary forms",
		"ISC":        "Permission to use, copy, modify, and",
		"Apache-2.0": "Apache License",
		"MPL-2.0":    "Mozilla Public License Version 2.0",
	}
	gpl = regexp.MustCompile(`GNU (LESSER |AFFERO )?GENERAL PUBLIC LICENSE`)
)

// TestLicences reads the licences of every module that is linked.
func TestLicences(t *testing.T) {
	t.Parallel()
	list := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if .Version}}{{.Path}}\t{{.Dir}}{{end}}{{end}}", "./cmd/...")
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	read := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		module, dir, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if !ok || read[module] {
			continue
		}
		read[module] = true
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for _, e := range entries {
			if !licenceFile.MatchString(e.Name()) || e.IsDir() {
				continue
			}
			one, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			text.Write(one)
		}
		words := strings.Join(strings.Fields(text.String()), " ")
		known := false
		for _, has := range allowed {
			known = known || strings.Contains(words, has)
		}
		if !known || gpl.MatchString(words) {
			t.Errorf("%s stands under a licence that is not among those allowed: %.200q", module, words)
		}
	}
	if len(read) < 10 {
		t.Errorf("only %d modules are linked", len(read))
	}
}
