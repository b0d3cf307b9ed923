package guard_test

import (
	"strings"
	"testing"

	"btcpool/internal/guard"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	if err := guard.DefaultLimits().Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
	if err := (guard.Limits{}).Validate(); err != nil {
		t.Errorf("no limits: %v", err)
	}
	err := guard.Limits{
		PerAddress: -1, PerNetwork: -2, LinesPerSec: -3, RefusedLogins: -4, InvalidShares: 1.5, InvalidAmong: -5, BanTime: -1,
	}.Validate()
	want := strings.Join([]string{
		`connections_per_address = -1: must not be negative`,
		`connections_per_network = -2: must not be negative`,
		`lines_per_second = -3: must not be negative`,
		`refused_logins = -4: must not be negative`,
		`invalid_shares_among = -5: must not be negative`,
		`invalid_shares = 1.5: must be 0 to 1`,
		`ban_time = "-1ns": must not be negative`,
	}, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v", err)
	}
}
