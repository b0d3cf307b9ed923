package config_test

import (
	"testing"

	"btcpool/internal/config"
)

func TestRedactURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                  "",
		"ftp://pool.example/users":          "ftp://pool.example/users",
		"http://me:secret@pool/users":       "http://…@pool/users",
		"http://me:sec@re?t@pool/users":     "http://…@pool/users",
		"http://pool/users?token=secret#x":  "http://pool/users?…",
		"me:secret@pool":                    "…@pool",
		"http://pool/users?mail=a@b&t=secr": "http://…@b&…",
		"://@://":                           "://…@://",
	} {
		if got := config.RedactURL(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
