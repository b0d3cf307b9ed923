package config

import (
	"errors"
	"net/url"
	"strings"
)

// CheckWebURL says what is wrong with the address of something that is asked over HTTP.
func CheckWebURL(text string) error {
	if u, err := url.Parse(text); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return errors.New("must be an http or https URL")
	}
	return nil
}

// RedactURL returns text, which is or was to be a URL, without what may be secret in it: a login, and what follows the
// path. It is for errors and logs.
func RedactURL(text string) string {
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		scheme := strings.Index(text[:at], "://") + len("://")
		if scheme < len("://") {
			scheme = 0
		}
		text = text[:scheme] + "…" + text[at:]
	}
	if end := strings.IndexAny(text, "?#&"); end >= 0 {
		text = text[:end+1] + "…"
	}
	return text
}
