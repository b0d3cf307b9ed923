package users

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"btcpool/internal/httpapi"
)

// maxAPIAnswer bounds an answer, in bytes: a million users.
const maxAPIAnswer = 64 << 20

// errAPIRefuses is an answer that is complete and says no.
var errAPIRefuses = errors.New("refused")

// api is btcpool's user list over HTTP.
type api struct {
	client   http.Client
	listURL  string
	register string // URL
}

// list is directory.list.
func (a *api) list(ctx context.Context, after int32) (map[string]int32, error) {
	u, err := url.Parse(a.listURL)
	if err != nil {
		return nil, err
	}
	query := u.Query()
	query.Set("last_id", strconv.Itoa(int(after)))
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	return a.do(req)
}

// find is directory.find: it has the user registered.
func (a *api) find(ctx context.Context, name string) (int32, error) {
	body, err := json.Marshal(struct {
		Name string `json:"name"`
	}{name})
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.register, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	users, err := a.do(req)
	if errors.Is(err, errAPIRefuses) {
		return 0, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	if err != nil {
		return 0, err
	}
	if len(users) != 1 {
		return 0, fmt.Errorf("registration of %s: answer has %d users", name, len(users))
	}
	return slices.Collect(maps.Values(users))[0], nil
}

// do returns the users of an answer.
func (a *api) do(req *http.Request) (map[string]int32, error) {
	text, err := httpapi.Fetch(&a.client, req, maxAPIAnswer)
	if err != nil {
		return nil, err
	}
	users, err := parseUsers(text)
	if err != nil {
		return nil, fmt.Errorf("%s %s%s: %w", req.Method, req.URL.Host, req.URL.Path, err)
	}
	return users, nil
}

// parseUsers reads btcpool's answer,
//
//	{"err_no":0,"err_msg":null,"data":{"name":id}}
//
// where no users may also be [], and ids may be strings, as PHP writes them. Users without a name, or with an id that
// is not 1 to 2^31-1, are left out. It wraps errAPIRefuses when err_no is not 0.
func parseUsers(text []byte) (map[string]int32, error) {
	var answer struct {
		ErrNo  int             `json:"err_no"`
		ErrMsg *string         `json:"err_msg"`
		Data   json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, err
	}
	if answer.ErrNo != 0 {
		message := "no message"
		if answer.ErrMsg != nil {
			message = *answer.ErrMsg
		}
		return nil, fmt.Errorf("%w: error %d: %.200q", errAPIRefuses, answer.ErrNo, message)
	}
	if answer.Data == nil {
		return nil, errors.New("there is no data")
	}
	if list := []any(nil); json.Unmarshal(answer.Data, &list) == nil && list != nil && len(list) == 0 {
		return nil, nil
	}
	var ids map[string]json.Number
	if err := json.Unmarshal(answer.Data, &ids); err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	if ids == nil {
		return nil, errors.New("data is null")
	}
	users := make(map[string]int32, len(ids))
	for name, number := range ids {
		if id, err := strconv.ParseInt(number.String(), 10, 32); err == nil && id > 0 && name != "" {
			users[name] = int32(id)
		}
	}
	return users, nil
}
