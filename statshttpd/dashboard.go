package statshttpd

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"btcpool/internal/config"
)

// Dashboard makes the pages an operator's own. Its texts are shown as they are, without markup.
type Dashboard struct {
	// Name is the pool's; empty: "btcpool".
	Name string `toml:"name" env:"NAME"`
	// Logo is a file of up to 24 KB: SVG, PNG, WebP or JPEG; empty: the built-in one.
	Logo string `toml:"logo" env:"LOGO"`
	// AccentDark and AccentLight are the colour of charts and marks on a dark and on a light page, as "#f7931a"; what
	// would be too close to the ground is made lighter or darker. Empty: the built-in one, and for AccentLight AccentDark.
	AccentDark  string `toml:"accent_dark" env:"ACCENT_DARK"`
	AccentLight string `toml:"accent_light" env:"ACCENT_LIGHT"`
	// Welcome stands on top of the first page; WelcomeZH in Chinese, where it is not the same.
	Welcome   string `toml:"welcome" env:"WELCOME"`
	WelcomeZH string `toml:"welcome_zh" env:"WELCOME_ZH"`
	// UserExample is what miners are told to log in as; empty: "name.worker".
	UserExample string `toml:"user_example" env:"USER_EXAMPLE"`
	// Links stand at the foot of each page.
	Links []Link `toml:"links"`
	// Explorers are addresses of blocks by chain, with {hash} or {height} in them: the chain is network, or the name of
	// one that is mined along. Those of networks that mempool.space shows are known; an empty one is no link.
	Explorers map[string]string `toml:"explorers"`
}

// Link leads from the pages to another place.
type Link struct {
	// Text is what is shown; TextZH in Chinese, where it is not the same.
	Text   string `toml:"text"`
	TextZH string `toml:"text_zh"`
	// URL is where it leads: https, http or mailto.
	URL string `toml:"url"`
}

const (
	maxLogo  = 24 << 10
	maxLinks = 12
	maxText  = 2000 // characters
	maxLabel = 64
)

var knownExplorers = map[string]string{
	"mainnet":  "https://mempool.space/block/{hash}",
	"testnet3": "https://mempool.space/testnet/block/{hash}",
	"testnet4": "https://mempool.space/testnet4/block/{hash}",
	"signet":   "https://mempool.space/signet/block/{hash}",
}

// Validate reports all faults but those of the file of the logo.
func (d Dashboard) Validate() error {
	var faults config.Faults
	text := func(key, value string, most int) {
		if n := utf8.RuneCountInString(value); n > most || !utf8.ValidString(value) {
			faults.Addf("%s: must be UTF-8 of up to %d characters, has %d", key, most, n)
		}
	}
	text("name", d.Name, maxLabel)
	text("user_example", d.UserExample, maxLabel)
	text("welcome", d.Welcome, maxText)
	text("welcome_zh", d.WelcomeZH, maxText)
	colour := func(key, value string) {
		if _, err := parseColour(value); value != "" && err != nil {
			faults.Addf("%s = %q: %w", key, value, err)
		}
	}
	colour("accent_dark", d.AccentDark)
	colour("accent_light", d.AccentLight)
	if len(d.Links) > maxLinks {
		faults.Addf("links: at most %d, there are %d", maxLinks, len(d.Links))
	}
	for i, l := range d.Links {
		text(fmt.Sprintf("links[%d].text", i), l.Text, maxLabel)
		text(fmt.Sprintf("links[%d].text_zh", i), l.TextZH, maxLabel)
		if l.Text == "" {
			faults.Addf("links[%d].text: must not be empty", i)
		}
		if u, err := url.Parse(l.URL); err != nil || (u.Scheme != "mailto" || u.Opaque == "") && !isWeb(u) {
			faults.Addf("links[%d].url: %q must be like https://example.org/ or mailto:pool@example.org", i, config.RedactURL(l.URL))
		}
	}
	for chain, address := range d.Explorers {
		u, err := url.Parse(strings.NewReplacer("{hash}", "00", "{height}", "0").Replace(address))
		if address != "" && (err != nil || !isWeb(u) || !strings.Contains(address, "{hash}") && !strings.Contains(address, "{height}")) {
			faults.Addf("explorers.%s: %q must be like https://example.org/block/{hash}", chain, config.RedactURL(address))
		}
	}
	return faults.Err()
}

func isWeb(u *url.URL) bool {
	return (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil
}

// files returns what the pages import beside their own files.
func (d Dashboard) files() map[string][]byte {
	type texts struct {
		EN string `json:"en"`
		ZH string `json:"zh"`
	}
	type link struct {
		Text texts  `json:"text"`
		URL  string `json:"url"`
	}
	both := func(en, zh string) texts {
		if zh == "" {
			zh = en
		}
		return texts{en, zh}
	}
	links := make([]link, len(d.Links))
	for i, l := range d.Links {
		links[i] = link{both(l.Text, l.TextZH), l.URL}
	}
	explorers := maps.Clone(knownExplorers)
	maps.Copy(explorers, d.Explorers)
	settings, _ := json.Marshal(map[string]any{ // which has nothing that could fail
		"name": d.Name, "user_example": d.UserExample, "welcome": both(d.Welcome, d.WelcomeZH), "links": links, "explorers": explorers,
	})
	return map[string][]byte{
		"settings.js": append(append([]byte("export default "), settings...), ";\n"...),
		"theme.css":   d.theme(),
	}
}

// colour is red, green and blue from 0 to 1.
type colour [3]float64

var hexColour = regexp.MustCompile(`^#[0-9A-Fa-f]{6}$`)

func parseColour(text string) (c colour, err error) {
	if !hexColour.MatchString(text) {
		return c, errors.New(`must be like "#f7931a"`)
	}
	for i := range c {
		var part uint8
		if _, err := fmt.Sscanf(text[1+2*i:3+2*i], "%02x", &part); err != nil {
			return c, err
		}
		c[i] = float64(part) / 255
	}
	return c, nil
}

func (c colour) String() string {
	return fmt.Sprintf("#%02x%02x%02x", uint8(math.Round(c[0]*255)), uint8(math.Round(c[1]*255)), uint8(math.Round(c[2]*255)))
}

// luminance is the relative luminance of WCAG 2.
func (c colour) luminance() float64 {
	linear := func(v float64) float64 {
		if v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(c[0]) + 0.7152*linear(c[1]) + 0.0722*linear(c[2])
}

func contrast(a, b colour) float64 {
	x, y := a.luminance(), b.luminance()
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

// against returns c, mixed with white on a dark ground or black on a light one until it has that contrast.
func (c colour) against(ground colour, least float64) colour {
	to := 0.0
	if ground.luminance() < 0.18 {
		to = 1
	}
	mixed := c
	for part := 0.02; contrast(mixed, ground) < least && part <= 1; part += 0.02 {
		for i := range mixed {
			mixed[i] = c[i] + (to-c[i])*part
		}
	}
	return mixed
}

// theme returns the style sheet with the configured colours.
func (d Dashboard) theme() []byte {
	light := d.AccentLight
	if light == "" {
		light = d.AccentDark
	}
	var b strings.Builder
	rule := func(text, ground, media string) {
		accent, err := parseColour(text)
		if err != nil {
			return // is empty: the style sheet has one
		}
		on, _ := parseColour(ground)
		const graphics, letters = 3, 4.5 // WCAG 2, 1.4.11 and 1.4.3
		fmt.Fprintf(&b, "@media (prefers-color-scheme: %s) { :root { --accent: %s; --accent-text: %s; } }\n",
			media, accent.against(on, graphics), accent.against(on, letters))
	}
	rule(d.AccentDark, "#1c2028", "dark")
	rule(light, "#f3f3ef", "light")
	return []byte(b.String())
}

// logo is the picture of the pool.
type logo struct {
	body []byte
	kind string
}

// readLogo reads the configured picture, nil where there is none.
func (d Dashboard) readLogo() (*logo, error) {
	if d.Logo == "" {
		return nil, nil
	}
	f, err := os.Open(d.Logo)
	if err != nil {
		return nil, fmt.Errorf("dashboard.logo: %w", err)
	}
	defer f.Close()
	body, err := io.ReadAll(io.LimitReader(f, maxLogo+1))
	if err != nil {
		return nil, fmt.Errorf("dashboard.logo: %w", err)
	}
	if len(body) > maxLogo {
		return nil, fmt.Errorf("dashboard.logo = %q: has more than %d KB", d.Logo, maxLogo>>10)
	}
	switch kind := http.DetectContentType(body); {
	case kind == "image/png" || kind == "image/webp" || kind == "image/jpeg":
		return &logo{body, kind}, nil
	case isSVG(body):
		return &logo{body, "image/svg+xml"}, nil
	}
	return nil, fmt.Errorf("dashboard.logo = %q: is no SVG, PNG, WebP or JPEG", d.Logo)
}

// isSVG tells whether body is XML as a whole, and SVG.
func isSVG(body []byte) bool {
	var root xml.Name
	for d := xml.NewDecoder(bytes.NewReader(body)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return root == xml.Name{Space: "http://www.w3.org/2000/svg", Local: "svg"}
		}
		if err != nil {
			return false
		}
		if e, ok := token.(xml.StartElement); ok && root.Local == "" {
			root = e.Name
		}
	}
}

// serveLogo answers with the picture of the pool, which is an image for pages and nothing else: opened by itself, a
// script in it does not run and nothing is loaded.
func (s *Service) serveLogo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox")
	if s.logo == nil {
		s.asset("favicon.svg").ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Type", s.logo.kind)
	s.serveFile(w, r, "", s.logo.body)
}
