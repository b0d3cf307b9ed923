package service

import (
	"strings"
	"testing"
)

// Where connections cannot pass, SIGUSR2 is refused, and does not end the process as it would if nobody took it.
func TestUpgradesPossible(t *testing.T) {
	t.Parallel()
	if err := possible("linux"); err != nil {
		t.Error(err)
	}
	if err := possible("darwin"); err == nil || !strings.Contains(err.Error(), "darwin") {
		t.Errorf("%v", err)
	}
}
