//go:build !linux

package upgrade

import "os/exec"

// awaitEnd returns when the process of cmd has ended.
func awaitEnd(cmd *exec.Cmd) { _, _ = cmd.Process.Wait() }
