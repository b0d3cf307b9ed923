package notify

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/mail"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"btcpool/internal/config"
)

// Kind is the way to a target.
type Kind string

// The kinds.
const (
	Webhook  Kind = "webhook"
	Email    Kind = "email"
	Telegram Kind = "telegram"
	Ntfy     Kind = "ntfy"
)

var kinds = []Kind{Webhook, Email, Telegram, Ntfy}

// Config is the section [notify].
type Config struct {
	// DataDir is a folder of this alone, for what was told and what is to be sent. It must be set where there are targets.
	DataDir string `toml:"data_dir"`
	// PoolName stands before each title, unless it is empty, the default.
	PoolName string `toml:"pool_name"`
	// SilentAfter is how long a worker has no share until it is silent; 10 minutes by default.
	SilentAfter config.Duration `toml:"silent_after"`
	// HashrateFall is by how many percent the hashrate of a user or the pool must be below its mean; 50 by default.
	HashrateFall int `toml:"hashrate_fall"`
	// RejectsAbove is how many percent of the shares of a quarter of an hour are refused; 10 by default.
	RejectsAbove int `toml:"rejects_above"`
	// MinShares is how many shares a hashrate or a ratio of rejects must rest upon; 50 by default.
	MinShares int `toml:"min_shares"`
	// HoldFor is how long a figure must be bad until it is told, and good again until that is told; 5 minutes by default.
	HoldFor config.Duration `toml:"hold_for"`
	// Pause is the least time between two messages of one kind to one target; 10 minutes by default.
	Pause config.Duration `toml:"pause"`
	// Targets are told; there are none by default.
	Targets []Target `toml:"targets" envPrefix:"TARGETS_"`
}

// Target is who is told what, and how.
type Target struct {
	// Name tells targets apart, also after a restart: 1 to 32 letters, digits, - and _.
	Name string `toml:"name"`
	Kind Kind   `toml:"kind"`
	// URL is where to: of a webhook; of ntfy's server, "https://ntfy.sh" by default; of Telegram's API,
	// "https://api.telegram.org" by default; of the mail server, smtp://host:587 (STARTTLS), smtps://host:465 or
	// smtp+plain://host:25 (no TLS, no login).
	URL string `toml:"url" env:"URL"`
	// URLFile names a file with the URL: that of a webhook may be a secret.
	URLFile string `toml:"url_file"`
	// Secret is the webhook's key for signatures ("whsec_" and base64, 24 to 64 bytes), the token of Telegram's bot, the
	// access token of ntfy (none by default) or the password of the mail server.
	Secret     string `toml:"secret" env:"SECRET"`
	SecretFile string `toml:"secret_file"`
	// Login is the user's name at the mail server; none by default.
	Login string `toml:"login"`
	// From is the sender of mail.
	From string `toml:"from"`
	// To are the addresses of mail, or one chat id of Telegram, or one topic of ntfy.
	To []string `toml:"to"`
	// Events are what is told; all by default.
	Events []Event `toml:"events"`
	// Users are whose workers, hashrates and blocks are told, by name; "*", the default, is everybody and the pool.
	Users []string `toml:"users"`
	// AllowPrivate is to be set for a target on a private, loopback or link-local address.
	AllowPrivate bool `toml:"allow_private"`
	// CAFile names a PEM file of certificates that the target's may be signed by, instead of the system's.
	CAFile string `toml:"ca_file"`
}

// DefaultConfig returns what holds for keys that are not set: nobody is told anything.
func DefaultConfig() Config {
	return Config{
		SilentAfter:  config.Duration(10 * time.Minute),
		HashrateFall: 50,
		RejectsAbove: 10,
		MinShares:    50,
		HoldFor:      config.Duration(5 * time.Minute),
		Pause:        config.Duration(10 * time.Minute),
	}
}

const (
	maxTargets = 100
	maxTo      = 50
)

// Validate reports all faults; keys lack the section's name.
func (c Config) Validate() error {
	var faults config.Faults
	if len(c.Targets) > 0 {
		faults.Folder("data_dir", c.DataDir)
	}
	if c.PoolName != clean(c.PoolName) {
		faults.Addf("pool_name = %q: must be at most 48 characters of plain text", c.PoolName)
	}
	faults.AtLeast("silent_after", c.SilentAfter, time.Minute)
	faults.Number("hashrate_fall", c.HashrateFall, 5, 95)
	faults.Number("rejects_above", c.RejectsAbove, 1, 90)
	faults.Number("min_shares", c.MinShares, 10, 1_000_000)
	faults.AtLeast("hold_for", c.HoldFor, 0)
	faults.AtLeast("pause", c.Pause, 0)
	faults.Number("number of targets", len(c.Targets), 0, maxTargets)
	names := make(map[string]bool)
	for i, t := range c.Targets {
		faults.In(fmt.Sprintf("targets[%d]", i), t.validate())
		if names[t.Name] {
			faults.Addf("targets[%d].name = %q: is another target's", i, t.Name)
		}
		names[t.Name] = true
	}
	return faults.Err()
}

var (
	targetName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)
	chatID     = regexp.MustCompile(`^(-?[0-9]{1,20}|@[A-Za-z0-9_]{1,64})$`)
	topicName  = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	botToken   = regexp.MustCompile(`^[0-9]{1,20}:[A-Za-z0-9_-]{10,100}$`)
)

func (t Target) validate() error {
	var faults config.Faults
	if !targetName.MatchString(t.Name) {
		faults.Addf("name = %q: must be 1 to 32 letters, digits, - and _", t.Name)
	}
	faults.Add(t.url().Validate())
	faults.Add(t.secret().Validate())
	if t.URL != "" {
		faults.Add(t.checkURL(t.URL))
	}
	if t.Secret != "" {
		faults.Add(t.checkSecret(t.Secret))
	}
	for _, e := range t.Events {
		if !slices.Contains(Events, e) {
			faults.Addf("events: %q must be one of %v", string(e), Events)
		}
	}
	for _, u := range t.Users {
		if u == "" || len(u) > 255 {
			faults.Addf("users: %.50q must be a user's name or *", u)
		}
	}
	if t.Kind != Email && (t.Login != "" || t.From != "") {
		faults.Addf("login, from: are for kind = %q", string(Email))
	}
	switch t.Kind {
	case Webhook:
		if t.url().IsZero() {
			faults.Addf("url: must be set, or url_file")
		}
		if len(t.To) > 0 {
			faults.Addf("to: is of no use to a webhook")
		}
	case Email:
		faults.Add(t.checkMail())
	case Telegram:
		if t.secret().IsZero() {
			faults.Addf("secret: must be the bot's token, or secret_file name its file")
		}
		if len(t.To) != 1 || !chatID.MatchString(t.To[0]) {
			faults.Addf("to: must be one chat id, as a text")
		}
	case Ntfy:
		if len(t.To) != 1 || !topicName.MatchString(t.To[0]) {
			faults.Addf("to: must be one topic, 1 to 64 letters, digits, - and _")
		}
	default:
		faults.Addf("kind = %q: must be one of %v", string(t.Kind), kinds)
	}
	return faults.Err()
}

func (t Target) checkMail() error {
	var faults config.Faults
	if t.url().IsZero() {
		faults.Addf("url: must be set, like smtp://mail.example.org:587")
	}
	if (t.Login == "") != t.secret().IsZero() {
		faults.Addf("login, secret: must both be set, or neither")
	}
	if strings.HasPrefix(t.URL, "smtp+plain:") && t.Login != "" {
		faults.Addf("login: is not sent without TLS")
	}
	if _, err := mail.ParseAddress(t.From); err != nil {
		faults.Addf("from = %q: must be a mail address", t.From)
	}
	if len(t.To) == 0 || len(t.To) > maxTo {
		faults.Addf("to: must be 1 to %d mail addresses", maxTo)
	}
	for _, to := range t.To {
		if _, err := mail.ParseAddress(to); err != nil {
			faults.Addf("to: %q must be a mail address", to)
		}
	}
	return faults.Err()
}

func (t Target) url() config.Secret {
	return config.Secret{Key: "url", Value: t.URL, File: t.URLFile}
}

func (t Target) secret() config.Secret {
	return config.Secret{Key: "secret", Value: t.Secret, File: t.SecretFile}
}

// checkURL does not repeat what may be a secret.
func (t Target) checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil {
		return errors.New("url: must be a URL with a host, without a login")
	}
	if t.Kind == Email {
		if !slices.Contains([]string{"smtp", "smtps", "smtp+plain"}, u.Scheme) || strings.Trim(u.Path, "/") != "" {
			return errors.New("url: must be like smtp://host:587, smtps://host:465 or smtp+plain://host:25")
		}
		return nil
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !t.AllowPrivate) {
		return errors.New("url: must begin with https://, or with allow_private http://")
	}
	return nil
}

func (t Target) checkSecret(text string) error {
	switch t.Kind {
	case Webhook:
		_, err := webhookKey(text)
		return err
	case Telegram:
		if !botToken.MatchString(text) {
			return errors.New("secret: must be a bot's token, digits:letters")
		}
	default:
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return errors.New("secret: must not have control characters")
		}
	}
	return nil
}

// webhookKey is the key that a secret stands for.
func webhookKey(secret string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil || len(key) < 24 || len(key) > 64 {
		return nil, errors.New(`secret: must be "whsec_" and 24 to 64 bytes in base64, as of: echo whsec_$(openssl rand -base64 32)`)
	}
	return key, nil
}

// open reads the target's secrets.
func (t Target) open() (sender, error) {
	address, err := t.url().Read()
	if err != nil {
		return nil, err
	}
	if address == "" {
		address = map[Kind]string{Telegram: "https://api.telegram.org", Ntfy: "https://ntfy.sh"}[t.Kind]
	}
	if err := t.checkURL(address); err != nil {
		return nil, err
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("url: must be a URL")
	}
	secret, err := t.secret().Read()
	if err != nil {
		return nil, err
	}
	if secret != "" || !t.secret().IsZero() {
		if err := t.checkSecret(secret); err != nil {
			return nil, err
		}
	}
	trust := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		text, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		if trust.RootCAs = x509.NewCertPool(); !trust.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("ca_file: %s has no certificate", t.CAFile)
		}
	}
	dial := dialer(t.AllowPrivate)
	if t.Kind == Email {
		return newMailer(t, u, secret, trust, dial), nil
	}
	post := newPoster(trust, dial, secret)
	switch t.Kind {
	case Telegram:
		return &telegram{post, u, secret, t.To[0]}, nil
	case Ntfy:
		return &ntfy{post, u, secret, t.To[0]}, nil
	}
	w := &webhook{poster: post, url: u}
	if secret != "" {
		if w.key, err = webhookKey(secret); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// wants tells whether e is told to t.
func (t Target) wants(e Event) bool { return len(t.Events) == 0 || slices.Contains(t.Events, e) }

// concerns tells whether what happens to that user, "" for the pool, is told to t.
func (t Target) concerns(user string) bool {
	return len(t.Users) == 0 || slices.Contains(t.Users, "*") || user != "" && slices.Contains(t.Users, user)
}
