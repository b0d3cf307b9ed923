package testkit

import (
	"net/http/httptest"
	"strings"
	"testing"
)

const description = `
openapi: 3.1.0
info: { title: test, version: "1" }
servers: [{ url: /api/v1 }]
paths:
  /things/{name}:
    get:
      parameters: [{ name: name, in: path, required: true, schema: { type: string } }]
      responses:
        "200": { description: One., content: { application/json: { schema: { $ref: "#/components/schemas/Detail" } } } }
        "404": { description: None., content: { application/json: { schema: { $ref: "#/components/schemas/Thing" } } } }
components:
  schemas:
    Thing:
      type: object
      required: [count, rate, state, at]
      properties:
        count: { type: integer }
        rate: { type: [number, "null"] }
        state: { type: string, enum: [new, old] }
        at: { oneOf: [{ $ref: "#/components/schemas/Place" }, { type: "null" }] }
    Place: { type: object, required: [x], properties: { x: { type: number } } }
    Detail:
      allOf:
        - $ref: "#/components/schemas/Thing"
        - { type: object, required: [list], properties: { list: { type: array, items: { $ref: "#/components/schemas/Place" } } } }
`

// checked returns how often an answer is complained about.
func checked(text, method, path string, status int, contentType, body string) int {
	var r recorder
	d := OpenAPI(&r, []byte(text))
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	w.WriteString(body)
	d.Check(httptest.NewRequest(method, path, nil), w.Result())
	return len(r.said)
}

func TestOpenAPI(t *testing.T) {
	t.Parallel()
	const (
		path, kind = "/api/v1/things/a%2Fb", "application/json; charset=utf-8"
		thing      = `{"count":1,"rate":0.5,"state":"new","at":{"x":1}}`
		detail     = `{"count":1,"rate":2,"state":"new","at":null,"list":[{"x":1e300}]}`
	)
	fine := func(status int, body string) {
		t.Helper()
		if n := checked(description, "GET", path, status, kind, body); n != 0 {
			t.Errorf("%d %s: refused", status, body)
		}
	}
	fine(200, detail)
	fine(404, thing)
	fine(404, strings.Replace(thing, "0.5", "null", 1))
	for _, change := range [][2]string{
		{`"count":1`, `"count":1.5`},
		{`"count":1`, `"count":1e21`},
		{`"count":1`, `"count":"1"`},
		{`"count":1`, `"count":null`},
		{`"count":1,`, ``},
		{`"rate":2`, `"rate":true`},
		{`"new"`, `"young"`},
		{`null`, `3`},
		{`null`, `{}`},
		{`null`, `{"x":null}`},
		{`1e300`, `"1"`},
		{`{"x":1e300}`, `{"x":1,"y":1}`},
		{`{"count"`, `{"more":1,"count"`},
		{`[{"x":1e300}]`, `null`},
	} {
		if body := strings.Replace(detail, change[0], change[1], 1); checked(description, "GET", path, 200, kind, body) != 1 {
			t.Errorf("taken: %s", body)
		}
	}
	for what, n := range map[string]int{
		"another status": checked(description, "GET", path, 500, kind, thing),
		"another type":   checked(description, "GET", path, 404, "text/plain", thing),
		"another path":   checked(description, "GET", "/api/v1/thing", 404, kind, thing),
		"another method": checked(description, "POST", path, 404, kind, thing),
		"the other body": checked(description, "GET", path, 404, kind, detail),
		"no JSON":        checked(description, "GET", path, 404, kind, "thing"),
		"optional field": checked(strings.Replace(description, "[x]", "[]", 1), "GET", path, 404, kind, thing),
	} {
		if n == 0 {
			t.Errorf("taken: %s", what)
		}
	}
}
