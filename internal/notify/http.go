package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// poster sends requests of HTTP. It follows no redirect and uses no proxy: both would connect elsewhere than was judged.
type poster struct {
	client *http.Client
	secret string // left out of errors
}

func newPoster(trust *tls.Config, dial *net.Dialer, secret string) poster {
	return poster{secret: secret, client: &http.Client{
		Transport: &http.Transport{
			DialContext:           dial.DialContext,
			TLSClientConfig:       trust,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: 20 * time.Second,
			DisableKeepAlives:     true, // messages are rare
			ForceAttemptHTTP2:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// refusal is an answer other than 2xx.
type refusal struct {
	status int
	said   string
	after  time.Duration // the answer wants no other try before, 0: it does not say
}

func (r *refusal) Error() string {
	text := fmt.Sprintf("answered %d", r.status)
	if r.said != "" {
		text += fmt.Sprintf(": %q", r.said)
	}
	return text
}

// post sends body, and returns nil when the answer is 2xx.
func (p poster) post(ctx context.Context, u *url.URL, body []byte, header http.Header) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return errors.New("url: cannot be asked")
	}
	for name, values := range header {
		req.Header[name] = values
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "btcpool")
	res, err := p.client.Do(req)
	if err != nil {
		if of, ok := errors.AsType[*url.Error](err); ok {
			err = of.Err // the URL may be a secret
		}
		return fmt.Errorf("%s: %w", u.Host, err)
	}
	defer func() { _ = res.Body.Close() }() // nothing is read any more
	const most = 2000
	said, _ := io.ReadAll(io.LimitReader(res.Body, most)) // what is there is told
	if res.StatusCode/100 == 2 {
		return nil
	}
	text := string(said)
	for _, hide := range []string{p.secret, strings.TrimPrefix(u.Path, "/"), u.RawQuery} {
		if len(hide) > 3 {
			text = strings.ReplaceAll(text, hide, "…")
		}
	}
	seconds, _ := strconv.Atoi(res.Header.Get("Retry-After")) // 0 for a date
	return &refusal{res.StatusCode, cut(printable(strings.TrimSpace(text)), 200), time.Duration(max(seconds, 0)) * time.Second}
}

// webhook signs as Standard Webhooks says.
type webhook struct {
	poster
	url *url.URL
	key []byte // nil: nothing is signed
}

// webhookBody is a Message with its text.
type webhookBody struct {
	*Message
	Title string `json:"title"`
	Text  string `json:"text"`
}

func (w *webhook) send(ctx context.Context, m *Message) error {
	body, err := json.Marshal(webhookBody{m, m.Title(), m.Text()})
	if err != nil {
		return err
	}
	now := strconv.FormatInt(time.Now().Unix(), 10)
	header := http.Header{"Webhook-Id": {m.ID}, "Webhook-Timestamp": {now}}
	if w.key != nil {
		header.Set("Webhook-Signature", sign(w.key, m.ID, now, body))
	}
	return w.post(ctx, w.url, body, header)
}

// sign is the header webhook-signature.
func sign(key []byte, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// telegram uses sendMessage of the Bot API, without a parse_mode: a text is a text.
type telegram struct {
	poster
	api   *url.URL
	token string
	chat  string
}

func (t *telegram) send(ctx context.Context, m *Message) error {
	const most = 4096 // characters as UTF-16 counts them
	body, err := json.Marshal(map[string]any{
		"chat_id":              t.chat,
		"text":                 shorten(m.Title()+"\n\n"+m.Text(), most, func(r rune) int { return utf16.RuneLen(r) }),
		"link_preview_options": map[string]bool{"is_disabled": true},
	})
	if err != nil {
		return err
	}
	return t.post(ctx, t.api.JoinPath("bot"+t.token, "sendMessage"), body, nil)
}

// ntfy publishes as JSON: what is in a header otherwise needs no encoding of its own there.
type ntfy struct {
	poster
	server *url.URL
	token  string
	topic  string
}

func (n *ntfy) send(ctx context.Context, m *Message) error {
	const most = 4000 // bytes; what is longer than 4096 becomes an attachment
	body, err := json.Marshal(map[string]any{
		"topic": n.topic, "title": shorten(m.Title(), 250, utf8.RuneLen), "message": shorten(m.Text(), most, utf8.RuneLen),
	})
	if err != nil {
		return err
	}
	header := http.Header{}
	if n.token != "" {
		header.Set("Authorization", "Bearer "+n.token)
	}
	return n.post(ctx, n.server, body, header)
}

// shorten cuts text to a size.
func shorten(text string, most int, size func(rune) int) string {
	const end = '…'
	at, used := 0, 0
	for i, r := range text {
		if used += size(r); used > most {
			return text[:at] + string(end)
		}
		if used <= most-size(end) {
			at = i + utf8.RuneLen(r)
		}
	}
	return text
}
