package notify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"net/url"
	"strconv"
	"strings"

	"github.com/wneessen/go-mail"
)

// mailer sends by SMTP. net/smtp is frozen, and knows no deadline: go-mail is kept, has releases every few months and needs
// nothing but the standard library's own modules.
type mailer struct {
	target Target
	url    *url.URL
	secret string
	trust  *tls.Config
	dial   *net.Dialer
}

func newMailer(t Target, u *url.URL, secret string, trust *tls.Config, dial *net.Dialer) *mailer {
	trust.ServerName = u.Hostname()
	return &mailer{t, u, secret, trust, dial}
}

func (m *mailer) send(ctx context.Context, what *Message) error {
	letter, err := m.letter(what)
	if err != nil {
		return err
	}
	client, err := m.client()
	if err != nil {
		return err
	}
	if err := client.DialAndSendWithContext(ctx, letter); err != nil {
		return errors.New(m.hide(err.Error()))
	}
	return nil
}

// hide leaves the password out of what a server says.
func (m *mailer) hide(text string) string {
	if m.secret != "" {
		text = strings.ReplaceAll(text, m.secret, "…")
	}
	return fmt.Sprintf("%s: %s", m.url.Host, cut(printable(text), 300))
}

func (m *mailer) client() (*mail.Client, error) {
	opts := []mail.Option{
		mail.WithTLSConfig(m.trust), mail.WithTLSPolicy(mail.TLSMandatory),
		mail.WithDialContextFunc(m.dial.DialContext), mail.WithTimeout(sendTimeout),
	}
	port := 587
	switch m.url.Scheme {
	case "smtps":
		port = 465
		secure := &tls.Dialer{NetDialer: m.dial, Config: m.trust}
		opts = append(opts, mail.WithSSL(), mail.WithDialContextFunc(secure.DialContext))
	case "smtp+plain":
		port = 25
		opts = append(opts, mail.WithTLSPolicy(mail.NoTLS))
	}
	if text := m.url.Port(); text != "" {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return nil, errors.New("url: has no valid port")
		}
		port = int(n)
	}
	if m.target.Login != "" {
		// The library's own choice takes a TLS connection that it has not made itself for a plain one. PLAIN and LOGIN are
		// refused by it without TLS.
		opts = append(opts, mail.WithUsername(m.target.Login), mail.WithPassword(m.secret),
			mail.WithOpportunisticSMTPAuth(mail.SMTPAuthSCRAMSHA256, mail.SMTPAuthSCRAMSHA1, mail.SMTPAuthPlain, mail.SMTPAuthLogin))
	}
	return mail.NewClient(m.url.Hostname(), append(opts, mail.WithPort(port))...)
}

// letter has the message's id in its Message-ID, so that one that came twice is known.
func (m *mailer) letter(what *Message) (*mail.Msg, error) {
	letter := mail.NewMsg()
	from, err := netmail.ParseAddress(m.target.From)
	if err != nil {
		return nil, errors.New("from: must be a mail address")
	}
	if err := letter.From(m.target.From); err != nil {
		return nil, fmt.Errorf("from: %w", err)
	}
	if err := letter.To(m.target.To...); err != nil {
		return nil, fmt.Errorf("to: %w", err)
	}
	_, domain, _ := strings.Cut(from.Address, "@")
	letter.SetMessageIDWithValue(what.ID + "@" + domain)
	letter.SetDateWithValue(what.Time)
	letter.SetGenHeader("Auto-Submitted", "auto-generated")
	letter.Subject(what.Title())
	letter.SetBodyString(mail.TypeTextPlain, what.Text()+"\n")
	return letter, nil
}
