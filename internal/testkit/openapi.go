package testkit

import (
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
)

// A Description is what an OpenAPI file says of an HTTP interface.
type Description struct {
	Doc    *openapi3.T
	tb     testing.TB
	router routers.Router
}

// OpenAPI reads a description, which must be valid and say of every field of an answer that it is required.
func OpenAPI(tb testing.TB, text []byte) *Description {
	tb.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		tb.Fatal(err)
	}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		tb.Fatal(err)
	}
	d := &Description{doc, tb, router}
	for path, item := range doc.Paths.Map() {
		for method, operation := range item.Operations() {
			for status, answer := range operation.Responses.Map() {
				content := answer.Value.Content.Get("application/json")
				if content == nil && (answer.Value.Content.Get(eventStream) != nil || answer.Value.Content.Get(plainText) != nil) {
					continue
				}
				if content == nil {
					tb.Fatalf("%s %s: answer %s has no schema", method, path, status)
				}
				if err := content.Schema.WalkSubtree(d.narrow); err != nil {
					tb.Fatal(err)
				}
			}
		}
	}
	return d
}

const eventStream, plainText = "text/event-stream", "text/plain"

func init() { openapi3filter.RegisterBodyDecoder(eventStream, openapi3filter.FileBodyDecoder) }

const wholeNumber = "whole number" // a format

// narrow has an object contain what is described and nothing else, and an integer be one of 64 bits.
func (d *Description) narrow(at string, ref *openapi3.SchemaRef) error {
	s := ref.Value
	for len(s.AllOf) > 0 { // a part alone would refuse what the others describe
		part := s.AllOf[0].Value
		all := make(openapi3.Schemas)
		maps.Copy(all, s.Properties)
		maps.Copy(all, part.Properties)
		s.Type, s.Properties, s.Required = &openapi3.Types{openapi3.TypeObject}, all, slices.Concat(s.Required, part.Required)
		s.AllOf = slices.Concat(s.AllOf[1:], part.AllOf)
	}
	if s.Properties != nil {
		none := false
		s.UnevaluatedProperties.Has = &none
		if all := slices.Sorted(maps.Keys(s.Properties)); !slices.Equal(all, slices.Sorted(slices.Values(s.Required))) {
			d.tb.Errorf("%s %s: %q are described, %q required", ref.Ref, at, all, s.Required)
		}
	}
	if s.Type.Includes(openapi3.TypeInteger) {
		s.Format = wholeNumber
	}
	return nil
}

// Check reports an answer that is not described, with its status, its type and each of its fields, or whose request is
// not.
func (d *Description) Check(request *http.Request, answer *http.Response) {
	d.tb.Helper()
	asked := request.Clone(request.Context())
	asked.URL.Path = request.URL.EscapedPath() // a slash may be part of a name
	route, _, err := d.router.FindRoute(asked)
	if err != nil {
		d.tb.Errorf("%s %s: %v", request.Method, request.URL, err)
		return
	}
	err = openapi3filter.ValidateResponse(request.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: request, Route: route},
		Status:                 answer.StatusCode,
		Header:                 answer.Header,
		Body:                   answer.Body,
		Options: &openapi3filter.Options{
			IncludeResponseStatus: true,
			SchemaValidationOptions: []openapi3.SchemaValidationOption{
				openapi3.WithNumberFormatValidator(wholeNumber, openapi3.NewRangeFormatValidator(-0x1p63, 0x1p63)),
			},
		},
	})
	if err != nil {
		d.tb.Errorf("%s %s: %v", request.Method, request.URL, err)
	}
}
