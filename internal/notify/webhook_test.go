package notify

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"
)

// TestWebhookIsDescribed compares what is sent with the webhook in statshttpd's OpenAPI document: every header and
// field that comes is described, and every one that is described comes.
func TestWebhookIsDescribed(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../statshttpd/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		t.Fatal(err)
	}
	post := doc.Webhooks["news"].Post
	body := post.RequestBody.Value.Content["application/json"].Schema.Value

	now := time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
	about := Subject{UserID: 1, WorkerID: 2, User: "ann", Worker: "rig"}
	var messages []*Message
	for _, e := range append(slices.Clone(Events), testEvent) {
		m := newMessage(e, now)
		m.Pool = "Pool"
		for _, is := range []bool{true, false} {
			c := condition{
				Event: e, Subject: about, Since: now.Unix(), Base: 2, Raised: is,
				Figures: Figures{Last: now.Unix(), Rate: 1, Shares: 100, Refused: 20},
			}
			b := knownBlock{Block: Block{Hash: "00", Height: 1, User: "ann", Worker: "rig", RewardSat: 312_500_000, Time: now, State: "accepted"}}
			switch e {
			case BlockFound:
				m.add(b.item(is))
			case testEvent:
			default:
				m.add(c.item())
			}
		}
		messages = append(messages, m)
	}

	came := map[string]bool{}
	properties := func(of *openapi3.Schema, in map[string]any, at string) {
		for name := range in {
			if of.Properties[name] == nil {
				t.Errorf("%s%s is sent, but not described", at, name)
			}
			came[at+name] = true
		}
	}
	for _, secret := range []string{testSecret, ""} {
		for _, m := range messages {
			srv, ca, asked := webServer(t, http.StatusNoContent, "")
			if err := sendTo(t, Target{Name: "a", Kind: Webhook, URL: srv.URL, Secret: secret, AllowPrivate: true, CAFile: ca}, m); err != nil {
				t.Fatal(err)
			}
			got := <-asked
			for _, p := range post.Parameters {
				values := got.header.Values(p.Value.Name)
				if signed := p.Value.Name == "webhook-signature"; len(values) != 1 && (!signed || secret != "") || signed && secret == "" && len(values) != 0 {
					t.Errorf("%s: header %s is %q", m.Type, p.Value.Name, values)
				}
				if p.Value.Required == (p.Value.Name == "webhook-signature") {
					t.Errorf("header %s is required: %v", p.Value.Name, p.Value.Required)
				}
				for _, v := range values {
					if err := p.Value.Schema.Value.VisitJSON(v); err != nil {
						t.Errorf("%s: header %s: %v", m.Type, p.Value.Name, err)
					}
				}
			}
			var sent map[string]any
			if err := json.Unmarshal(got.body, &sent); err != nil {
				t.Fatal(err)
			}
			if err := body.VisitJSON(sent); err != nil {
				t.Errorf("%s: %v", m.Type, err)
			}
			properties(body, sent, "")
			for _, item := range sent["items"].([]any) {
				properties(body.Properties["items"].Value.Items.Value, item.(map[string]any), "items.")
			}
		}
	}
	var described []string
	for name := range body.Properties {
		described = append(described, name)
	}
	for name := range body.Properties["items"].Value.Items.Value.Properties {
		described = append(described, "items."+name)
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(described)), slices.Sorted(maps.Keys(came))); diff != "" {
		t.Errorf("fields (-described +sent):\n%s", diff)
	}
}
