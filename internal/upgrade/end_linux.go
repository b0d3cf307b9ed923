package upgrade

import (
	"errors"
	"os/exec"

	"golang.org/x/sys/unix"
)

// awaitEnd returns when the process of cmd has ended. How is left to be asked for by whoever is its parent then: this
// process may end first.
func awaitEnd(cmd *exec.Cmd) {
	for errors.Is(unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
		continue
	}
}
