package config_test

import (
	"testing"

	"btcpool/internal/config"
)

func TestCheckWebURL(t *testing.T) {
	t.Parallel()
	for text, good := range map[string]bool{
		"http://pool": true, "https://me:secret@pool.example/users?x=y": true, "HTTPS://pool": true, "http://[::1]:8080/": true,
		"": false, "pool": false, "http:/pool": false, "http://": false, "ftp://pool": false, "http://pool\x7f": false, "//pool": false,
	} {
		if err := config.CheckWebURL(text); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
}

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
