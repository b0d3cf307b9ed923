package statshttpd

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// schema is as much of JSON Schema as the description uses.
type schema struct {
	Ref        string             `yaml:"$ref"`
	Type       any                `yaml:"type"` // a name or a list of names
	Properties map[string]*schema `yaml:"properties"`
	Required   []string           `yaml:"required"`
	Items      *schema            `yaml:"items"`
	AllOf      []*schema          `yaml:"allOf"`
	OneOf      []*schema          `yaml:"oneOf"`
	Enum       []string           `yaml:"enum"`
}

type response struct {
	Ref     string `yaml:"$ref"`
	Content map[string]struct {
		Schema *schema `yaml:"schema"`
	} `yaml:"content"`
}

type parameter struct {
	Ref    string `yaml:"$ref"`
	Name   string `yaml:"name"`
	In     string `yaml:"in"`
	Schema struct {
		Enum    []string `yaml:"enum"`
		Minimum *int     `yaml:"minimum"`
		Maximum *int     `yaml:"maximum"`
	} `yaml:"schema"`
}

type description struct {
	OpenAPI string `yaml:"openapi"`
	Servers []struct {
		URL string `yaml:"url"`
	} `yaml:"servers"`
	Paths map[string]struct {
		Get struct {
			Parameters []parameter         `yaml:"parameters"`
			Responses  map[string]response `yaml:"responses"`
		} `yaml:"get"`
	} `yaml:"paths"`
	Components struct {
		Parameters map[string]parameter `yaml:"parameters"`
		Responses  map[string]response  `yaml:"responses"`
		Schemas    map[string]*schema   `yaml:"schemas"`
	} `yaml:"components"`
}

// check holds value against s, and reports fields that only one of them has.
func (d *description) check(where string, s *schema, value any) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, where+": "+fmt.Sprintf(format, args...)) }
	s = d.flat(s)
	for _, alternative := range s.OneOf {
		if alternative := d.flat(alternative); value != nil || typeNames(alternative)[0] == "null" {
			return d.check(where, alternative, value)
		}
	}
	var name string
	switch v := value.(type) {
	case nil:
		name = "null"
	case bool:
		name = "boolean"
	case string:
		name = "string"
		if s.Enum != nil && !slices.Contains(s.Enum, v) {
			fault("%q is none of %v", v, s.Enum)
		}
	case json.Number:
		name = "number"
		if _, err := v.Int64(); err == nil {
			name = "integer"
		}
	case []any:
		name = "array"
		for i, item := range v {
			faults = append(faults, d.check(fmt.Sprintf("%s[%d]", where, i), s.Items, item)...)
		}
	case map[string]any:
		name = "object"
		for _, key := range s.Required {
			if s.Properties[key] == nil {
				fault("%s is required but not described", key)
			}
		}
		for _, key := range slices.Sorted(maps.Keys(s.Properties)) {
			if field, ok := v[key]; ok {
				faults = append(faults, d.check(where+"."+key, s.Properties[key], field)...)
			} else {
				fault("%s is described but not answered", key)
			}
		}
		for key := range v {
			if s.Properties[key] == nil {
				fault("%s is answered but not described", key)
			}
		}
	}
	types := typeNames(s)
	if name == "integer" && slices.Contains(types, "number") {
		name = "number"
	}
	if !slices.Contains(types, name) {
		fault("is %s, described as %v", name, types)
	}
	return faults
}

func typeNames(s *schema) (names []string) {
	switch t := s.Type.(type) {
	case string:
		names = []string{t}
	case []any:
		for _, name := range t {
			names = append(names, fmt.Sprint(name))
		}
	}
	return names
}

// flat follows a reference and joins what allOf lists.
func (d *description) flat(s *schema) *schema {
	if s.Ref != "" {
		return d.flat(d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")])
	}
	if s.AllOf == nil {
		return s
	}
	joined := &schema{Type: "object", Properties: make(map[string]*schema)}
	for _, part := range s.AllOf {
		part = d.flat(part)
		maps.Copy(joined.Properties, part.Properties)
		joined.Required = append(joined.Required, part.Required...)
	}
	return joined
}

func decode(t *testing.T, body string) (value any) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return value
}

func TestOpenAPI(t *testing.T) {
	t.Parallel()
	var d description
	if err := yaml.Unmarshal(openAPI, &d); err != nil {
		t.Fatal(err)
	}
	if d.OpenAPI != "3.1.0" || len(d.Servers) != 1 || len(d.Paths) != 4 {
		t.Fatalf("openapi %s with %d servers and %d paths", d.OpenAPI, len(d.Servers), len(d.Paths))
	}
	full, empty := newTestService(t, noon), newTestService(t, noon)
	full.small(t)
	example := strings.NewReplacer("{user}", "ann", "{worker}", "rig.1")
	for path, item := range d.Paths {
		target := d.Servers[0].URL + example.Replace(path)
		answers := map[string]*schema{}
		for status, r := range item.Get.Responses {
			if r.Ref != "" {
				r = d.Components.Responses[strings.TrimPrefix(r.Ref, "#/components/responses/")]
			}
			answers[status] = r.Content["application/json"].Schema
			if answers[status] == nil {
				t.Fatalf("%s: answer %s has no schema", path, status)
			}
		}
		for _, s := range []*Service{full, empty} {
			w := get(s.Handler(), target)
			expected := answers[fmt.Sprint(w.Code)]
			if expected == nil {
				t.Errorf("%s: status %d is not described", target, w.Code)
				continue
			}
			for _, fault := range d.check(path, expected, decode(t, w.Body.String())) {
				t.Error(fault)
			}
		}
		refused := get(full.Handler(), target+"?unheard=of")
		for _, fault := range d.check(path, answers["400"], decode(t, refused.Body.String())) {
			t.Error(fault)
		}

		for _, p := range item.Get.Parameters {
			if p.Ref != "" {
				p = d.Components.Parameters[strings.TrimPrefix(p.Ref, "#/components/parameters/")]
			}
			if p.In != "query" {
				continue
			}
			good := p.Schema.Enum
			if p.Schema.Minimum != nil {
				good = []string{fmt.Sprint(*p.Schema.Minimum), fmt.Sprint(*p.Schema.Maximum)}
				for _, bad := range []int{*p.Schema.Minimum - 1, *p.Schema.Maximum + 1} {
					if w := get(full.Handler(), fmt.Sprintf("%s?%s=%d", target, p.Name, bad)); w.Code != http.StatusBadRequest {
						t.Errorf("%s=%d: status %d", p.Name, bad, w.Code)
					}
				}
			}
			if good == nil {
				good = []string{"x"}
			}
			for _, value := range good {
				if w := get(full.Handler(), target+"?"+p.Name+"="+value); w.Code != http.StatusOK {
					t.Errorf("%s=%s: status %d: %s", p.Name, value, w.Code, w.Body)
				}
			}
		}
	}
}
