package service

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"
)

// stops are the requests to stop of the process: a console's, and the service manager's.
var stops = make(chan os.Signal, 2)

func notifyStops() (signals <-chan os.Signal, stop func()) {
	signal.Notify(stops, os.Interrupt)
	return stops, func() { signal.Stop(stops) }
}

// Managed runs main and returns its exit code. When Windows' service manager has started the process, relative paths are
// relative to the program, and what main writes goes to name.log in %ProgramData%\name.
func Managed(name string, stderr io.Writer, main func(stderr io.Writer) int) int {
	if is, err := svc.IsWindowsService(); err != nil || !is {
		return main(stderr)
	}
	m := &managed{main: func() int {
		file, err := managedLog(name)
		if err != nil {
			return exitFailed
		}
		defer file.Close()
		return main(file)
	}}
	if err := svc.Run(name, m); err != nil {
		return exitFailed
	}
	return m.code
}

func managedLog(name string) (*LogFile, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := os.Chdir(filepath.Dir(program)); err != nil {
		return nil, err
	}
	dir := filepath.Join(os.Getenv("ProgramData"), name)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	return OpenLogFile(filepath.Join(dir, name+".log"))
}

// managed is a program under the service manager.
type managed struct {
	main func() int
	code int
}

// Execute implements svc.Handler.
func (m *managed) Execute(_ []string, requests <-chan svc.ChangeRequest, status chan<- svc.Status) (ours bool, code uint32) {
	done := make(chan int, 1)
	go func() { done <- m.main() }()
	status <- svc.Status{State: svc.Running, Accepts: svc.AcceptStop | svc.AcceptShutdown}
	for {
		select {
		case m.code = <-done:
			return m.code != exitStopped, uint32(m.code)
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				status <- r.CurrentStatus
			case svc.Stop, svc.Shutdown:
				status <- svc.Status{State: svc.StopPending}
				select {
				case stops <- os.Interrupt:
				default: // it has been told
				}
			}
		}
	}
}

const (
	// restartDelay is after what time a service that failed is started again.
	restartDelay = 5 * time.Second
	// stopPatience is how long a service may take to stop.
	stopPatience = time.Minute
	// localService is an account with few rights.
	localService = `NT AUTHORITY\LocalService`
)

// Control has Windows' service manager install this program as the service called name, which starts with the system and
// is given args, or uninstall, start or stop it.
func Control(name, what string, args []string) error {
	m, err := mgr.Connect()
	if err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	defer func() { _ = m.Disconnect() }()
	if what == "install" {
		return install(m, name, args)
	}
	s, err := m.OpenService(name)
	if err != nil {
		return fmt.Errorf("service %s: %w", name, err)
	}
	defer s.Close()
	switch what {
	case "uninstall":
		return s.Delete()
	case "start":
		return s.Start()
	case "stop":
		return stopped(s)
	}
	return errors.New("must be install, uninstall, start or stop")
}

func install(m *mgr.Mgr, name string, args []string) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	s, err := m.CreateService(name, program, mgr.Config{
		StartType:        mgr.StartAutomatic,
		ServiceStartName: localService,
		DisplayName:      name,
	}, args...)
	if err != nil {
		return err
	}
	defer s.Close()
	return errors.Join(
		s.SetRecoveryActions([]mgr.RecoveryAction{{Type: mgr.ServiceRestart, Delay: restartDelay}}, 0),
		s.SetRecoveryActionsOnNonCrashFailures(true))
}

// stopped stops a service and waits until it has.
func stopped(s *mgr.Service) error {
	status, err := s.Control(svc.Stop)
	if errors.Is(err, windows.ERROR_SERVICE_NOT_ACTIVE) {
		return nil
	}
	for end := time.Now().Add(stopPatience); err == nil && status.State != svc.Stopped; status, err = s.Query() {
		if time.Now().After(end) {
			return fmt.Errorf("not stopped within %s", stopPatience)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}
