package agentproxy

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"btcpool/internal/service"
)

// btcAgentFile is what BTCAgent reads when it is not told what.
const btcAgentFile = "agent_conf.json"

// legacy are BTCAgent's flags among those of the frame.
type legacy struct {
	file      string // -c
	logDir    string // -l
	alsoError bool   // -alsologtostderr
}

// splitLegacy takes BTCAgent's flags out of args. The other flags of its logging library are dropped.
func splitLegacy(args []string) (old legacy, rest, dropped []string) {
	for i := 0; i < len(args); i++ {
		name, value, given := strings.Cut(args[i], "=")
		name = "-" + strings.TrimLeft(name, "-")
		take := func() string {
			if !given && i+1 < len(args) {
				i++
				value = args[i]
			}
			return value
		}
		switch {
		case !strings.HasPrefix(args[i], "-"):
			rest = append(rest, args[i])
		case name == "-c":
			old.file = take()
		case name == "-l", name == "-log_dir":
			old.logDir = take()
		case name == "-alsologtostderr":
			old.alsoError = value != "false"
		case name == "-logtostderr":
			dropped = append(dropped, args[i])
		case slices.Contains([]string{"-v", "-vmodule", "-stderrthreshold", "-log_backtrace_at"}, name):
			flag := args[i]
			take()
			dropped = append(dropped, flag)
		default:
			rest = append(rest, args[i])
			if slices.Contains([]string{"-config", "-log-level"}, name) && !given && i+1 < len(args) {
				i++
				rest = append(rest, args[i])
			}
		}
	}
	if old.logDir == "stderr" {
		old.logDir = ""
	}
	return old, rest, dropped
}

// splitService takes -service out of args, which says what is to be done with the Windows service.
func splitService(args []string) (what string, rest []string) {
	for i, arg := range args {
		name, value, given := strings.Cut(arg, "=")
		switch {
		case strings.TrimLeft(name, "-") != "service" || !strings.HasPrefix(name, "-"):
			continue
		case given:
			return value, slices.Delete(slices.Clone(args), i, i+1)
		case i+1 < len(args):
			return args[i+1], slices.Delete(slices.Clone(args), i, i+2)
		}
	}
	return "", args
}

// Main runs the proxy, or sees to its Windows service, and returns the exit code of its process.
func Main(args []string, stderr io.Writer) int {
	const name = "agentproxy"
	if what, rest := splitService(args); what != "" {
		if err := service.Control(name, what, rest); err != nil {
			fmt.Fprintf(stderr, "agentproxy: -service %s: %v\n", what, err)
			return 1
		}
		return 0
	}
	return service.Managed(name, stderr, func(stderr io.Writer) int { return run(args, stderr) })
}

// run is Main without services. Without a file that it is told to read, it reads BTCAgent's if that is in the working
// folder.
func run(args []string, stderr io.Writer) int {
	old, rest, dropped := splitLegacy(args)
	for _, flag := range dropped {
		fmt.Fprintf(stderr, "agentproxy: flag %s has no meaning here: -log-level says how much is logged\n", flag)
	}
	own := slices.ContainsFunc(rest, func(arg string) bool { return strings.HasPrefix(strings.TrimLeft(arg, "-"), "config") })
	if _, err := os.Stat(btcAgentFile); old.file == "" && !own && err == nil {
		old.file = btcAgentFile
	}
	p := service.Program[Config, *Service]{
		Name:   "agentproxy",
		Stderr: stderr,
		Defaults: func() (Config, []string, error) {
			if old.file == "" {
				return DefaultConfig(), nil, nil
			}
			return FromBTCAgent(old.file)
		},
		Build:      New,
		AlsoStderr: old.alsoError,
	}
	if old.logDir != "" {
		p.LogFile = filepath.Join(old.logDir, "agentproxy.log")
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	return p.Main(rest)
}

// garbage is how much of it the collector leaves, in percent of what is in use: a box with little memory has machines by
// the thousand, and little to compute.
const garbage = 50
