package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/http/httptest"
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

const testSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// The vector is Standard Webhooks'.
func TestSign(t *testing.T) {
	t.Parallel()
	key := []byte("\x31\xf2\x90\xf6\xbf\x06\x29\x8a\xab\x4f\x08\xd4\x3c\x3f\x08\x2c\xf6\x48\xa3\x62\xda\x2d\xa4\xb0")
	got := sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// evil are names as somebody chooses who wants to be more than named.
var evil = []string{
	"<script>alert(1)</script>", "<img src=x onerror=alert(1)>", `"><a href="https://evil.example">`,
	"rig\r\nBcc: victim@example.org", "rig\n\n.\r\nQUIT\r\n", "rig\r\n\r\n<b>body</b>", "\u202egnp.exe", "a\x00b\x1b[31mc",
	"*bold* _it_ [link](https://evil.example) `code`", "&lt;b&gt;", "=cmd|' /C calc'!A0", "\xff\xfe", "{{.}} %s %d ${x}", strings.Repeat("\U0001F525", 255),
}

func evilMessage() *Message {
	m := newMessage(WorkerSilent, noon)
	m.Pool = "Pool"
	for i, name := range evil {
		c := condition{Event: WorkerSilent, Subject: Subject{1, int64(i + 1), name, name}, Figures: Figures{Last: noon.Unix()}, Raised: true, Since: noon.Unix()}
		m.add(c.item())
	}
	return m
}

// request is what a server was asked.
type request struct {
	path   string
	header http.Header
	body   []byte
}

// webServer answers with code, and gives out what it was asked.
func webServer(t *testing.T, code int, answer string) (*httptest.Server, string, <-chan request) {
	t.Helper()
	asked := make(chan request, 100)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		asked <- request{r.URL.Path, r.Header, body}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, answer) // the client may have gone
	}))
	t.Cleanup(srv.Close)
	return srv, caFile(t, srv), asked
}

func caFile(t *testing.T, srv *httptest.Server) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func sendTo(t *testing.T, target Target, m *Message) error {
	t.Helper()
	if err := target.validate(); err != nil {
		t.Fatal(err)
	}
	s, err := target.open()
	if err != nil {
		t.Fatal(err)
	}
	return sendInTime(t.Context(), s, m)
}

func TestWebhook(t *testing.T) {
	t.Parallel()
	srv, ca, asked := webServer(t, http.StatusNoContent, "")
	m := evilMessage()
	if err := sendTo(t, Target{Name: "a", Kind: Webhook, URL: srv.URL + "/hook", Secret: testSecret, AllowPrivate: true, CAFile: ca}, m); err != nil {
		t.Fatal(err)
	}
	got := <-asked
	key, err := webhookKey(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	if want := sign(key, m.ID, got.header.Get("webhook-timestamp"), got.body); got.header.Get("webhook-signature") != want || got.header.Get("webhook-id") != m.ID {
		t.Errorf("headers %v", got.header)
	}
	var body struct {
		Message
		Title, Text string
	}
	if err := json.Unmarshal(got.body, &body); err != nil {
		t.Fatal(err)
	}
	if body.Count != len(evil) || body.Items[0].Worker != evil[0] || body.Items[3].Worker != evil[3] || body.Title != "Pool: workers: 14 silent" {
		t.Errorf("body %s", got.body)
	}
	if bytes.ContainsAny(got.body, "<>") {
		t.Errorf("a page that shows this runs it: %s", got.body)
	}
	onlyText(t, body.Text, len(m.Items))
}

// onlyText reports what is not text in one line a name.
func onlyText(t *testing.T, text string, names int) {
	t.Helper()
	if n := strings.Count(strings.TrimRight(text, "\r\n"), "\n"); n > names+1 { // a title before it, and an empty line
		t.Errorf("a name has broken its line: %d lines\n%s", n, text)
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return r < ' ' && r != '\n' || r == '\u202e' || r == 0x7f }); i >= 0 {
		t.Errorf("there is %q in\n%s", text[i:i+1], text)
	}
}

func TestTelegram(t *testing.T) {
	t.Parallel()
	const token = "123456:ABC-DEF1234ghIkl-zyx57W2v1u123ew11"
	srv, ca, asked := webServer(t, http.StatusOK, `{"ok":true,"result":{}}`)
	target := Target{Name: "a", Kind: Telegram, URL: srv.URL, Secret: token, To: []string{"-100123"}, AllowPrivate: true, CAFile: ca}
	m := evilMessage()
	if err := sendTo(t, target, m); err != nil {
		t.Fatal(err)
	}
	got := <-asked
	var body map[string]any
	if err := json.Unmarshal(got.body, &body); err != nil {
		t.Fatal(err)
	}
	if got.path != "/bot"+token+"/sendMessage" || body["chat_id"] != "-100123" || body["parse_mode"] != nil || body["entities"] != nil {
		t.Errorf("%s %s", got.path, got.body)
	}
	text, _ := body["text"].(string)
	if n := len(utf16.Encode([]rune(text))); n > 4096 || !strings.Contains(text, evil[0]) {
		t.Errorf("%d characters: %s", n, text)
	}
	onlyText(t, text, len(m.Items))

	// As the API answers a wrong chat. The token is in no error.
	srv, target.CAFile, _ = webServer(t, http.StatusBadRequest, `{"ok":false,"error_code":400,"description":"Bad Request: chat not found `+token+`"}`)
	target.URL = srv.URL
	err := sendTo(t, target, evilMessage())
	if err == nil || !strings.Contains(err.Error(), "chat not found") || strings.Contains(err.Error(), token) {
		t.Errorf("got %v", err)
	}
	srv.Close()
	if err := sendTo(t, target, evilMessage()); err == nil || strings.Contains(err.Error(), token) {
		t.Errorf("got %v", err)
	}
}

func TestNtfy(t *testing.T) {
	t.Parallel()
	srv, ca, asked := webServer(t, http.StatusOK, `{"id":"x","event":"message"}`)
	m := evilMessage()
	for range 10 { // more than fits
		m.Items = append(m.Items, m.Items[13])
	}
	if err := sendTo(t, Target{Name: "a", Kind: Ntfy, URL: srv.URL, Secret: "tk_secret", To: []string{"pool"}, AllowPrivate: true, CAFile: ca}, m); err != nil {
		t.Fatal(err)
	}
	got := <-asked
	var body map[string]any
	if err := json.Unmarshal(got.body, &body); err != nil {
		t.Fatal(err)
	}
	if got.path != "/" || body["topic"] != "pool" || body["title"] != "Pool: workers: 14 silent" || body["markdown"] != nil || got.header.Get("Authorization") != "Bearer tk_secret" {
		t.Errorf("%s %v %s", got.path, got.header, got.body)
	}
	text, _ := body["message"].(string)
	if len(text) > 4000 || !strings.HasSuffix(text, "…") {
		t.Errorf("%d bytes: %s", len(text), text)
	}
	onlyText(t, text, len(m.Items))
}

// A redirect would lead past what was judged.
func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	inner, ca, asked := webServer(t, http.StatusOK, "")
	srv := httptest.NewTLSServer(http.RedirectHandler(inner.URL, http.StatusTemporaryRedirect))
	defer srv.Close()
	err := sendTo(t, Target{Name: "a", Kind: Webhook, URL: srv.URL, AllowPrivate: true, CAFile: ca}, evilMessage())
	if r, ok := errors.AsType[*refusal](err); !ok || r.status != http.StatusTemporaryRedirect {
		t.Errorf("got %v", err)
	}
	select {
	case <-asked:
		t.Error("it was")
	default:
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "120")
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	defer srv.Close()
	err := sendTo(t, Target{Name: "a", Kind: Webhook, URL: srv.URL, AllowPrivate: true, CAFile: caFile(t, srv)}, evilMessage())
	if r, ok := errors.AsType[*refusal](err); !ok || r.after != 2*time.Minute {
		t.Errorf("got %v", err)
	}
}

// mailServer is a real one, which keeps what comes.
type mailServer struct {
	mu      sync.Mutex
	letters []letter
	auth    func(user, password string) error
}

type letter struct {
	from string
	to   []string
	text []byte
}

type mailSession struct {
	*mailServer
	letter
}

func (s *mailServer) NewSession(*smtp.Conn) (smtp.Session, error) {
	return &mailSession{mailServer: s}, nil
}
func (s *mailSession) AuthMechanisms() []string { return []string{sasl.Plain} }
func (s *mailSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error { return s.auth(user, password) }), nil
}
func (s *mailSession) Mail(from string, _ *smtp.MailOptions) error { s.from = from; return nil }
func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error   { s.to = append(s.to, to); return nil }

func (s *mailSession) Data(r io.Reader) (err error) {
	s.text, err = io.ReadAll(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.letters = append(s.letters, s.letter)
	return err
}
func (s *mailSession) Reset()        { s.letter = letter{} }
func (s *mailSession) Logout() error { return nil }

// mailer starts a mail server with that kind of TLS.
func startMail(t *testing.T, scheme string) (s *mailServer, address, ca string) {
	t.Helper()
	certified := httptest.NewTLSServer(nil) // for its certificate
	certified.Close()
	s = &mailServer{auth: func(user, password string) error {
		if user != "pool" || password != "pass word" {
			return errors.New("535 wrong: " + password)
		}
		return nil
	}}
	server := smtp.NewServer(s)
	server.Domain = "localhost"
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	switch scheme {
	case "smtp":
		server.TLSConfig = certified.TLS
	case "smtps":
		ln = tls.NewListener(ln, certified.TLS)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln) }()
	t.Cleanup(func() {
		ln.Close()         // which ends a Serve that has not begun, too
		_ = server.Close() // says that it is closed
		<-done
	})
	return s, scheme + "://" + ln.Addr().String(), caFile(t, certified)
}

func TestEmail(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"smtp", "smtps", "smtp+plain"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			server, address, ca := startMail(t, scheme)
			target := Target{
				Name: "a", Kind: Email, URL: address, From: "The Pool <pool@example.org>", To: []string{"a@example.org", "b@example.org"},
				AllowPrivate: true, CAFile: ca,
			}
			if scheme != "smtp+plain" {
				target.Login, target.Secret = "pool", "pass word"
			}
			all := evilMessage()
			if err := sendTo(t, target, all); err != nil {
				t.Fatal(err)
			}
			one := newMessage(WorkerSilent, noon)
			one.add((&condition{Event: WorkerSilent, Subject: Subject{1, 1, evil[3], evil[0]}, Raised: true}).item())
			if err := sendTo(t, target, one); err != nil {
				t.Fatal(err)
			}
			server.mu.Lock()
			defer server.mu.Unlock()
			for i, m := range []*Message{all, one} {
				read(t, server.letters[i], m)
			}
		})
	}
}

// read compares a letter with what was to be said.
func read(t *testing.T, l letter, m *Message) {
	t.Helper()
	got, err := netmail.ReadMessage(bytes.NewReader(l.text))
	if err != nil {
		t.Fatal(err)
	}
	if l.from != "pool@example.org" || len(l.to) != 2 || got.Header.Get("Bcc") != "" {
		t.Errorf("from %s to %s, headers %v", l.from, l.to, got.Header)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(got.Header.Get("Subject"))
	if err != nil || subject != m.Title() {
		t.Errorf("subject %q, %v", subject, err)
	}
	if kind, _, err := mime.ParseMediaType(got.Header.Get("Content-Type")); kind != "text/plain" || err != nil {
		t.Errorf("Content-Type %s", got.Header.Get("Content-Type"))
	}
	if id := got.Header.Get("Message-Id"); id != "<"+m.ID+"@example.org>" {
		t.Errorf("Message-ID %s", id)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(got.Body))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSpace(strings.ReplaceAll(string(body), "\r\n", "\n"))
	if text != m.Text() {
		t.Errorf("got\n%s\nwant\n%s", text, m.Text())
	}
	onlyText(t, text, len(m.Items))
}

// A password goes nowhere without TLS, and is in no error.
func TestEmailRefuses(t *testing.T) {
	t.Parallel()
	_, address, ca := startMail(t, "smtp+plain")
	target := Target{
		Name: "a", Kind: Email, URL: strings.Replace(address, "smtp+plain", "smtp", 1), Login: "pool", Secret: "pass word",
		From: "pool@example.org", To: []string{"a@example.org"}, AllowPrivate: true, CAFile: ca,
	}
	if err := sendTo(t, target, evilMessage()); err == nil || !strings.Contains(err.Error(), "STARTTLS") {
		t.Errorf("without STARTTLS: %v", err)
	}
	_, target.URL, target.CAFile = startMail(t, "smtp")
	target.Secret = "wrong word"
	if err := sendTo(t, target, evilMessage()); err == nil || !strings.Contains(err.Error(), "535") || strings.Contains(err.Error(), "wrong word") {
		t.Errorf("with a wrong password: %v", err)
	}
	target.CAFile = ""
	if err := sendTo(t, target, evilMessage()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("with a certificate that nobody vouches for: %v", err)
	}
}

// Whatever the kind, an address that is not public is not connected to unless it is allowed, also behind a name.
func TestPrivateIsRefused(t *testing.T) {
	t.Parallel()
	srv, ca, asked := webServer(t, http.StatusOK, "")
	_, address, mailCA := startMail(t, "smtp")
	port := srv.URL[strings.LastIndex(srv.URL, ":"):]
	mailPort := address[strings.LastIndex(address, ":"):]
	for _, target := range []Target{
		{Kind: Webhook, URL: srv.URL, CAFile: ca},
		{Kind: Webhook, URL: "https://localhost" + port, CAFile: ca},
		{Kind: Webhook, URL: "https://[::ffff:127.0.0.1]" + port, CAFile: ca},
		{Kind: Webhook, URL: "https://0.0.0.0" + port, CAFile: ca},
		{Kind: Telegram, URL: srv.URL, Secret: "1:0123456789", To: []string{"1"}, CAFile: ca},
		{Kind: Ntfy, URL: srv.URL, To: []string{"pool"}, CAFile: ca},
		{Kind: Email, URL: address, From: "a@example.org", To: []string{"a@example.org"}, CAFile: mailCA},
		{Kind: Email, URL: "smtp://localhost" + mailPort, From: "a@example.org", To: []string{"a@example.org"}, CAFile: mailCA},
		{Kind: Email, URL: "smtps://localhost" + mailPort, From: "a@example.org", To: []string{"a@example.org"}, CAFile: mailCA},
	} {
		target.Name = "a"
		if err := sendTo(t, target, evilMessage()); err == nil || !strings.Contains(err.Error(), "allow_private") {
			t.Errorf("%s %s: %v", target.Kind, target.URL, err)
		}
	}
	if len(asked) > 0 {
		t.Error("it was asked")
	}
	for _, ip := range []string{
		"127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255",
		"240.0.0.1", "198.18.0.1", "::", "::1", "::ffff:10.0.0.1", "::127.0.0.1", "fe80::1", "fd00:ec2::254", "ff02::1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:1::1",
	} {
		d := dialer(false)
		if err := d.Control("tcp", net.JoinHostPort(ip, "80"), nil); !errors.Is(err, errPrivate) {
			t.Errorf("%s: %v", ip, err)
		}
	}
	for _, ip := range []string{"1.1.1.1", "149.154.167.220", "2606:4700:4700::1111", "::ffff:8.8.8.8"} {
		if err := dialer(false).Control("tcp", net.JoinHostPort(ip, "80"), nil); err != nil {
			t.Errorf("%s: %v", ip, err)
		}
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	cfg.SilentAfter, cfg.HashrateFall, cfg.RejectsAbove, cfg.MinShares, cfg.HoldFor, cfg.Pause = 1, 100, 0, 0, -1, -1
	cfg.PoolName = "a\nb"
	cfg.Targets = []Target{
		{Name: "a b", Kind: "pager"},
		{Name: "a", Kind: Webhook, URL: "http://example.org/?key=hidden", Secret: "whsec_c2hvcnQ=", To: []string{"x"}, Events: []Event{"moon"}, Users: []string{""}},
		{Name: "a", Kind: Email, URL: "https://example.org", Login: "x", From: "nobody", To: []string{"nobody"}},
		{Name: "c", Kind: Telegram, Secret: "hidden", To: []string{"a", "b"}},
		{Name: "d", Kind: Ntfy, URL: "https://user:hidden@example.org", To: []string{"a/b"}},
		{Name: "e", Kind: Webhook},
		{Name: "f", Kind: Email, URL: "smtp+plain://example.org", Login: "x", Secret: "hidden", From: "a@example.org"},
	}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("valid")
	}
	for _, part := range []string{
		"data_dir", "pool_name", "silent_after", "hashrate_fall = 100", "rejects_above = 0", "min_shares = 0", "hold_for", "pause",
		`targets[0].name = "a b"`, `targets[0].kind = "pager"`, "targets[1].url: must begin with https://", "targets[1].secret", "targets[1].to", `targets[1].events: "moon"`, "targets[1].users",
		`targets[2].name = "a": is another`, "targets[2].url", "targets[2].login, secret", `targets[2].from = "nobody"`, "targets[2].to",
		"targets[3].secret", "targets[3].to", "targets[4].url", "targets[4].to", "targets[5].url: must be set", "targets[6].login: is not sent without TLS", "targets[6].to",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in:\n%v", part, err)
		}
	}
	if strings.Contains(err.Error(), "hidden") {
		t.Errorf("a secret is in:\n%v", err)
	}
	missing := Target{Name: "a", Kind: Webhook, URLFile: "/nowhere/url"}
	if _, err := missing.open(); err == nil || !strings.Contains(err.Error(), "url_file") {
		t.Errorf("got %v", err)
	}
}

var _ sender = senderFunc(nil)

type senderFunc func(ctx context.Context, m *Message) error

func (f senderFunc) send(ctx context.Context, m *Message) error { return f(ctx, m) }
