package switchapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

const (
	maxMap    = 64 << 20 // bytes of an answer that says something of all users
	maxQuotes = 1 << 20  // of one that says something of coins
)

// userMap is what the user system says of users.
type userMap struct {
	of  map[string]string // chains, or sub-pools, by user
	now int64             // the user system's clock, in Unix seconds; 0: it does not say
}

// parseMap reads an answer with the data {"<key>":{"user":"btc"},"now_date":1600000000}, where no users may also be [],
// and numbers may be texts.
func parseMap(text []byte, key string) (m userMap, err error) {
	var answer struct {
		ErrNo  int                        `json:"err_no"`
		ErrMsg *string                    `json:"err_msg"`
		Data   map[string]json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return m, err
	}
	if answer.ErrNo != 0 {
		return m, fmt.Errorf("refused: error %d", answer.ErrNo)
	}
	of, ok := answer.Data[key]
	if !ok {
		return m, fmt.Errorf("there is no %s in the data", key)
	}
	if list := []any(nil); json.Unmarshal(of, &list) != nil || list == nil || len(list) > 0 {
		if err := json.Unmarshal(of, &m.of); err != nil {
			return userMap{}, fmt.Errorf("%s: %w", key, err)
		}
	}
	if date, ok := answer.Data["now_date"]; ok {
		var number json.Number
		if err := json.Unmarshal(date, &number); err != nil {
			return userMap{}, fmt.Errorf("now_date: %w", err)
		}
		if m.now, err = strconv.ParseInt(number.String(), 10, 64); err != nil || m.now < 0 {
			return userMap{}, errors.New("now_date is no time")
		}
	}
	return m, nil
}

// parseRegistered reads the answer to a registration: the user's id.
func parseRegistered(text []byte) (int32, error) {
	var answer struct {
		Message any `json:"message"`
		Data    struct {
			PUID json.Number `json:"puid"`
		} `json:"data"`
	}
	err := json.Unmarshal(text, &answer)
	if id, bad := strconv.ParseInt(answer.Data.PUID.String(), 10, 32); err == nil && bad == nil && id > 0 {
		return int32(id), nil
	}
	return 0, fmt.Errorf("no id: %.100v", answer.Message)
}
