package main

import (
	"bytes"
	"cmp"
	"context"
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

	"github.com/spf13/cobra"

	"btcpool/internal/httpapi"
	"btcpool/sserver"
)

// apiPatience is how long an answer of sserver's admin API may take.
const apiPatience = 15 * time.Second

// maxAnswer bounds an answer of sserver's admin API.
const maxAnswer = 16 << 20

// api is the admin API of an sserver.
type api struct {
	name   string // of the part
	base   string
	token  string
	client *http.Client
}

// apis returns the admin APIs of all sservers, or of the one that is named.
func (p *pool) apis(only string) (all []api, err error) {
	servers, names := configs[sserver.Config](p)
	for i, c := range servers {
		if only != "" && names[i] != only {
			continue
		}
		if c.AdminAPI.Listen == "" {
			if only != "" {
				return nil, fmt.Errorf("%s has no admin API: set admin_api.listen and admin_api.token_file", only)
			}
			continue
		}
		a := api{name: names[i], base: "http://" + c.AdminAPI.Listen + "/api/v1", client: &http.Client{Timeout: apiPatience}}
		transport := &http.Transport{}
		if path, unix := strings.CutPrefix(c.AdminAPI.Listen, "unix:"); unix {
			a.base = "http://sserver/api/v1"
			transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			}
		}
		a.client.Transport = transport
		if a.token, err = c.AdminAPI.ReadToken(); err != nil {
			return nil, fmt.Errorf("%s: %w", names[i], err)
		}
		all = append(all, a)
	}
	if len(all) == 0 {
		return nil, errors.New("no sserver with an admin API is configured here: set admin_api.listen and admin_api.token_file")
	}
	return all, nil
}

// call sends a request and reads the answer into result.
func (a api) call(ctx context.Context, method, path string, query url.Values, body, result any) error {
	var content io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, a.base+path, content)
	if err != nil {
		return err
	}
	if request.URL.RawQuery = query.Encode(); body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if a.token != "" {
		httpapi.Authorize(request, a.token)
	}
	answer, err := a.client.Do(request)
	if err != nil {
		return fmt.Errorf("%s: %w", a.name, err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s: %w", a.name, err)
	}
	if answer.StatusCode != http.StatusOK {
		var refused struct{ Error struct{ Message string } }
		_ = json.Unmarshal(text, &refused)
		return fmt.Errorf("%s: %s", a.name, cmp.Or(refused.Error.Message, answer.Status))
	}
	if err := json.Unmarshal(text, result); err != nil {
		return fmt.Errorf("%s: %w", a.name, err)
	}
	return nil
}

// onServers adds a flag that names one of the sservers, and has do called for each that is meant.
func (t *tool) onServers(cmd *cobra.Command, do func(ctx context.Context, a api, args []string) error) *cobra.Command {
	only := cmd.Flags().String("server", "", "only the sserver that has this `file` name, like sserver-2; otherwise all of them")
	return t.onPool(cmd, func(ctx context.Context, p *pool, args []string) error {
		all, err := p.apis(*only)
		if err != nil {
			return err
		}
		var errs []error
		for _, a := range all {
			errs = append(errs, do(ctx, a, args))
		}
		return errors.Join(errs...)
	})
}

// selection says which sessions are meant.
type selection struct {
	Session string `json:"session,omitempty"`
	User    string `json:"user,omitempty"`
	Worker  string `json:"worker,omitempty"`
	Address string `json:"address,omitempty"`
	Agent   string `json:"agent,omitempty"`
	All     bool   `json:"all,omitempty"`
}

func (s *selection) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.User, "user", "", "of this user")
	f.StringVar(&s.Worker, "worker", "", "of this worker, without the user's name")
	f.StringVar(&s.Address, "address", "", "of this address or network")
	f.StringVar(&s.Agent, "agent", "", "whose software is called so, in part")
}

// chosen adds the flags of one session and of all to those of a selection.
func (s *selection) chosen(cmd *cobra.Command) {
	s.flags(cmd)
	cmd.Flags().StringVar(&s.Session, "session", "", "the session with this id")
	cmd.Flags().BoolVar(&s.All, "all", false, "all sessions")
}

func (t *tool) sessionsCommand() *cobra.Command {
	var meant selection
	var limit int
	list := &cobra.Command{Use: "list", Short: "Sessions by their ids", Args: exactly(0)}
	meant.flags(list)
	list.Flags().IntVar(&limit, "limit", 100, "show at most so many of each sserver")
	t.onServers(list, func(ctx context.Context, a api, _ []string) error { return t.listSessions(ctx, a, meant, limit) })

	var kicked struct {
		selection
		Reconnect   bool   `json:"reconnect,omitempty"`
		ReconnectTo string `json:"reconnect_to,omitempty"`
	}
	kick := &cobra.Command{Use: "kick", Short: "End sessions", Args: exactly(0)}
	kicked.chosen(kick)
	kick.Flags().BoolVar(&kicked.Reconnect, "reconnect", false, "ask them to connect again")
	kick.Flags().StringVar(&kicked.ReconnectTo, "reconnect-to", "", "ask them to connect to this host:port")
	t.onServers(kick, func(ctx context.Context, a api, _ []string) error {
		return t.affect(ctx, a, "/kick", kicked, "ended")
	})

	var told struct {
		selection
		Text string `json:"text"`
	}
	message := &cobra.Command{Use: "message TEXT", Short: "Have miners show a text", Args: exactly(1)}
	told.chosen(message)
	t.onServers(message, func(ctx context.Context, a api, args []string) error {
		told.Text = args[0]
		return t.affect(ctx, a, "/message", told, "told")
	})
	var set struct {
		selection
		Difficulty float64 `json:"difficulty"`
		Fixed      bool    `json:"fixed,omitempty"`
	}
	difficulty := &cobra.Command{Use: "difficulty NUMBER", Short: "Set the difficulty of miners", Args: exactly(1)}
	set.chosen(difficulty)
	difficulty.Flags().BoolVar(&set.Fixed, "fixed", false, "it stays; otherwise it is where the search for the right one begins")
	t.onServers(difficulty, func(ctx context.Context, a api, args []string) (err error) {
		if set.Difficulty, err = strconv.ParseFloat(args[0], 64); err != nil {
			return usageError{fmt.Errorf("%q is no difficulty", args[0])}
		}
		return t.affect(ctx, a, "/difficulty", set, "told")
	})
	return parent("sessions", "Sessions of miners, by sserver's admin API", list, kick, message, difficulty)
}

func (t *tool) affect(ctx context.Context, a api, path string, body any, done string) error {
	var affected struct{ Sessions int }
	if err := a.call(ctx, http.MethodPost, path, nil, body, &affected); err != nil {
		return err
	}
	t.printf("%s: %d sessions %s\n", a.name, affected.Sessions, done)
	return nil
}

// pageSize is how many sessions are asked for at a time.
const pageSize = 1000

func (t *tool) listSessions(ctx context.Context, a api, meant selection, limit int) error {
	query := url.Values{}
	for key, value := range map[string]string{"user": meant.User, "worker": meant.Worker, "address": meant.Address, "agent": meant.Agent} {
		if value != "" {
			query.Set(key, value)
		}
	}
	var page struct {
		Total    int
		Next     *string
		Sessions []struct {
			ID, State, Address, Agent string
			Workers                   []string
			Difficulty                float64
			Accepted, Rejected        int64
			Miners                    *int
			LastShareAt               *string `json:"last_share_at"`
		}
	}
	var err error
	t.table(func(w io.Writer) {
		fmt.Fprintln(w, "SESSION\tADDRESS\tWORKER\tSOFTWARE\tDIFFICULTY\tACCEPTED\tREJECTED\tLAST SHARE\tMINERS")
		for left := limit; left > 0; {
			query.Set("limit", fmt.Sprint(min(left, pageSize)))
			page.Next, page.Sessions = nil, nil
			if err = a.call(ctx, http.MethodGet, "/sessions", query, nil, &page); err != nil {
				return
			}
			for _, s := range page.Sessions {
				worker, last, miners := s.State, "-", "-"
				if len(s.Workers) > 0 {
					worker = s.Workers[0]
				}
				if s.LastShareAt != nil {
					last = *s.LastShareAt
				}
				if s.Miners != nil {
					miners = fmt.Sprint(*s.Miners)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%g\t%d\t%d\t%s\t%s\n", s.ID, s.Address, worker, s.Agent, s.Difficulty, s.Accepted, s.Rejected, last, miners)
			}
			left -= len(page.Sessions)
			if page.Next == nil || len(page.Sessions) == 0 {
				return
			}
			query.Set("after", *page.Next)
		}
	})
	if err == nil {
		t.printf("%s: %d sessions\n", a.name, page.Total)
	}
	return err
}

func (t *tool) bansCommand() *cobra.Command {
	list := t.onServers(&cobra.Command{Use: "list", Short: "Bans, those that end first first", Args: exactly(0)},
		func(ctx context.Context, a api, _ []string) error {
			var page struct {
				Total int
				Bans  []struct{ Prefix, Until, Reason string }
			}
			if err := a.call(ctx, http.MethodGet, "/bans", url.Values{"limit": {fmt.Sprint(pageSize)}}, nil, &page); err != nil {
				return err
			}
			t.table(func(w io.Writer) {
				fmt.Fprintln(w, "ADDRESSES\tUNTIL\tREASON")
				for _, b := range page.Bans {
					fmt.Fprintf(w, "%s\t%s\t%s\n", b.Prefix, b.Until, b.Reason)
				}
			})
			t.printf("%s: %d bans\n", a.name, page.Total)
			return nil
		})
	var ban struct {
		Prefix   string `json:"prefix"`
		Duration string `json:"duration"`
		Reason   string `json:"reason,omitempty"`
	}
	add := &cobra.Command{Use: "add ADDRESS", Short: "Ban an address or a network, like 192.0.2.0/24, and end its sessions", Args: exactly(1)}
	add.Flags().StringVar(&ban.Duration, "for", "24h", "how long, like 90m")
	add.Flags().StringVar(&ban.Reason, "reason", "", "why; it is shown in lists")
	t.onServers(add, func(ctx context.Context, a api, args []string) error {
		ban.Prefix = args[0]
		var added struct {
			Prefix, Until string
			Sessions      int
		}
		if err := a.call(ctx, http.MethodPost, "/bans", nil, ban, &added); err != nil {
			return err
		}
		t.printf("%s: %s is banned until %s, %d sessions ended\n", a.name, added.Prefix, added.Until, added.Sessions)
		return nil
	})
	remove := t.onServers(&cobra.Command{Use: "remove ADDRESS", Short: "Lift the ban of exactly these addresses", Args: exactly(1)},
		func(ctx context.Context, a api, args []string) error {
			var lifted struct{ Lifted string }
			if err := a.call(ctx, http.MethodDelete, "/bans", url.Values{"prefix": {args[0]}}, nil, &lifted); err != nil {
				return err
			}
			t.printf("%s: %s may connect again\n", a.name, lifted.Lifted)
			return nil
		})
	return parent("bans", "Bans, by sserver's admin API", list, add, remove)
}

func (t *tool) drainCommand() *cobra.Command {
	var body struct {
		Grace       string `json:"grace,omitempty"`
		ReconnectTo string `json:"reconnect_to,omitempty"`
	}
	say := func(method string) func(context.Context, api, []string) error {
		return func(ctx context.Context, a api, _ []string) error {
			var send any
			if method == http.MethodPost {
				send = body
			}
			var is struct {
				State       string
				Connections int
			}
			if err := a.call(ctx, method, "/drain", nil, send, &is); err != nil {
				return err
			}
			t.printf("%s: %s, %d connections\n", a.name, is.State, is.Connections)
			return nil
		}
	}
	start := &cobra.Command{Use: "start", Short: "Send all miners away and let nobody in, without ending the process", Args: exactly(0)}
	start.Flags().StringVar(&body.Grace, "grace", "", "over which they are sent away, evenly, like 10m")
	start.Flags().StringVar(&body.ReconnectTo, "reconnect-to", "", "where they are to go; otherwise where they came from")
	t.onServers(start, say(http.MethodPost))
	stop := t.onServers(&cobra.Command{Use: "stop", Short: "Let miners in again", Args: exactly(0)}, say(http.MethodDelete))
	status := t.onServers(&cobra.Command{Use: "status", Short: "Whether miners are being sent away", Args: exactly(0)}, say(http.MethodGet))
	return parent("drain", "Send miners away before work on a machine, by sserver's admin API", start, stop, status)
}
