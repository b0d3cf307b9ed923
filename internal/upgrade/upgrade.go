// Package upgrade has a new process go on with what a running one holds: listening sockets, live connections, and
// whatever else the two agree upon, so that a new program or configuration costs nobody a connection.
//
// The running process starts the new one, the Successor, with the same path, arguments and environment and one end of a
// socket pair. To the new one the old one is the Predecessor. They say, in this order:
//
//	old  hello     listening sockets by name; the new process opens no others under those names
//	old  settings  what the new process must agree with, in the service's own form
//	new  ready     by now it has whatever it needs but what only one may have
//	old            what the service moves, in messages of its own kinds
//	new  taken     it could go on at once
//	old  go        and does so. The old process has nothing any more
//
// Until it has said go, the old process has given nothing away: it keeps a copy of each descriptor, and the new one
// neither reads nor writes. Whatever goes wrong before, the old process kills the new one, and goes on. A new process
// that does not agree says why by refused instead of ready.
//
// Nothing is written to a file, and secrets come from where they came before: the new process reads its own
// configuration.
package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Kinds of messages. A service's own are from KindService on.
const (
	kindHello byte = iota + 1
	kindSettings
	kindReady
	kindRefused
	kindTaken
	kindGo
	KindService byte = 32
)

const (
	// ReadyTimeout is what a new process gets to be ready.
	ReadyTimeout = 30 * time.Second
	// MoveTimeout is what moving may take: miners wait meanwhile.
	MoveTimeout = 10 * time.Second

	envFD = "POOL_UPGRADE_FD" // no variable of the configuration
	// maxName bounds the name of a listener, maxReason why a process refuses.
	maxName, maxReason = 4 << 10, 4 << 10
)

// executable is the path by which the program was started: a link there may lead elsewhere by now, which is how programs
// are replaced.
var executable, errExecutable = func() (string, error) {
	path, err := exec.LookPath(os.Args[0])
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}()

// Executable returns the path by which a process that follows this one is started.
func Executable() (string, error) { return executable, errExecutable }

// Successor is the new process, for the old one.
type Successor struct {
	*Conn
	cmd   *exec.Cmd     // nil: a test's
	ended chan struct{} // closed when the process has
	reap  func() error  // has cmd know how

	// BeforeGo is called when the new process is about to go on, for those who watch this one; AfterFailedGo if it did
	// not. nil: nothing is.
	BeforeGo, AfterFailedGo func()

	names []string
	files []*os.File

	readyIn time.Duration // ReadyTimeout, but for tests
}

// Start starts the program of this process again.
func Start() (*Successor, error) {
	if errExecutable != nil {
		return nil, errExecutable
	}
	here, there, err := pair()
	if err != nil {
		return nil, err
	}
	defer there.Close()
	cmd := exec.Command(executable, os.Args[1:]...) //nolint:gosec // by which this process was started
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{there}
	own := func(entry string) bool { // the watchdog is for whoever serves
		return strings.HasPrefix(entry, envFD+"=") || strings.HasPrefix(entry, "WATCHDOG_PID=")
	}
	cmd.Env = append(slices.DeleteFunc(os.Environ(), own), envFD+"=3")
	if err := cmd.Start(); err != nil {
		_ = here.Close()
		return nil, err
	}
	s := &Successor{Conn: here, cmd: cmd, ended: make(chan struct{}), reap: sync.OnceValue(cmd.Wait), readyIn: ReadyTimeout}
	go func() {
		defer close(s.ended)
		awaitEnd(cmd)
	}()
	return s, nil
}

// PID is that of the process.
func (s *Successor) PID() int {
	if s.cmd == nil {
		return os.Getpid()
	}
	return s.cmd.Process.Pid
}

// Offer adds a listening socket to those that Introduce sends. It is the Successor's from now on.
func (s *Successor) Offer(name string, file *os.File) {
	s.names, s.files = append(s.names, name), append(s.files, file)
}

// Introduce says hello, with settings in the service's own form.
func (s *Successor) Introduce(settings []byte) error {
	defer s.dropOffers()
	w := NewWriter(0, time.Time{}, nil)
	List(w, &s.names, MaxFDs, func(c *Codec, name *string) { c.Text(name, maxName) })
	fds := make([]int, len(s.files))
	for i, f := range s.files {
		raw, err := f.SyscallConn() // Fd would have them block, which is the sockets', not the descriptors'
		if err == nil {
			err = raw.Control(func(fd uintptr) { fds[i] = int(fd) })
		}
		if err != nil {
			return err
		}
	}
	_ = s.SetDeadline(time.Now().Add(ReadyTimeout))
	if err := s.Send(kindHello, w.Bytes(), fds...); err != nil {
		return s.explain(err)
	}
	return s.explain(s.Send(kindSettings, settings))
}

func (s *Successor) dropOffers() {
	for _, f := range s.files {
		f.Close()
	}
	s.names, s.files = nil, nil
}

// Ready waits until the new process is, at most ReadyTimeout, and returns what it says.
func (s *Successor) Ready(ctx context.Context) ([]byte, error) {
	_ = s.SetDeadline(time.Now().Add(s.readyIn))
	defer context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) })()
	m, err := s.Receive()
	m.Close()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil:
		return nil, fmt.Errorf("the new process is not ready within %s", s.readyIn)
	case err != nil:
		return nil, s.explain(err)
	case m.Kind == kindRefused:
		return nil, fmt.Errorf("the new process cannot take over: %.*q", maxReason, m.Body)
	case m.Kind != kindReady:
		return nil, fmt.Errorf("%w: message %d instead of ready", ErrMalformed, m.Kind)
	}
	return m.Body, s.SetDeadline(time.Now().Add(MoveTimeout))
}

// Taken waits until the new process could go on.
func (s *Successor) Taken() error { return s.Await(kindTaken) }

// Await waits for a message of a kind, of which nothing but the kind matters.
func (s *Successor) Await(kind byte) error {
	m, err := s.Receive()
	m.Close()
	switch {
	case err != nil:
		return s.explain(err)
	case m.Kind == kindRefused:
		return fmt.Errorf("the new process cannot take over: %.*q", maxReason, m.Body)
	case m.Kind != kind:
		return fmt.Errorf("%w: message %d instead of %d", ErrMalformed, m.Kind, kind)
	}
	return nil
}

// Go has the new process go on.
func (s *Successor) Go() error {
	if s.BeforeGo != nil {
		s.BeforeGo()
	}
	err := s.explain(s.Send(kindGo, nil))
	if err != nil && s.AfterFailedGo != nil {
		s.AfterFailedGo()
	}
	return err
}

// explain makes of an error of the connection what has become of the process, if it has ended.
func (s *Successor) explain(err error) error {
	if err == nil || s.cmd == nil {
		return err
	}
	select {
	case <-s.ended:
		_ = s.reap() // its state says how it ended
		return fmt.Errorf("the new process has ended: %s", s.cmd.ProcessState)
	case <-time.After(time.Second): // it closes its end before it has ended
		return err
	}
}

// Kill ends the new process and returns when it has. What it held, such as locks, is free then.
func (s *Successor) Kill() {
	s.dropOffers()
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		<-s.ended
		_ = s.reap() // killed
	}
	_ = s.Close()
}

// Predecessor is the old process, for the new one. A nil Predecessor says that there is none.
type Predecessor struct {
	*Conn
	Settings []byte // as Introduce sent them

	mu        sync.Mutex
	listeners map[string]*os.File
	gone      chan struct{} // closed when the new process goes on
	once      sync.Once
}

// Inherit returns the Predecessor of this process; nil when there is none.
func Inherit() (*Predecessor, error) {
	text, ok := os.LookupEnv(envFD)
	if !ok {
		return nil, nil
	}
	_ = os.Unsetenv(envFD)
	fd, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", envFD, err)
	}
	conn, err := newConn(fd)
	if err != nil {
		return nil, err
	}
	return meet(conn)
}

// meet hears the hello of the old process.
func meet(conn *Conn) (_ *Predecessor, err error) {
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	_ = conn.SetDeadline(time.Now().Add(ReadyTimeout))
	m, err := conn.Receive()
	if err != nil {
		return nil, err
	}
	p := &Predecessor{Conn: conn, listeners: make(map[string]*os.File), gone: make(chan struct{})}
	var names []string
	r := NewReader(0, time.Time{}, m.Body)
	List(r, &names, MaxFDs, func(c *Codec, name *string) { c.Text(name, maxName) })
	if r.Err() != nil || m.Kind != kindHello || len(names) != len(m.FDs) {
		m.Close()
		return nil, fmt.Errorf("%w: no hello", ErrMalformed)
	}
	for i, name := range names {
		if p.listeners[name] != nil {
			p.listeners[name].Close()
		}
		p.listeners[name] = os.NewFile(uintptr(m.FDs[i]), name)
	}
	m, err = conn.Receive()
	m.Close()
	if err != nil || m.Kind != kindSettings {
		p.dropListeners()
		return nil, errors.Join(err, fmt.Errorf("%w: no settings", ErrMalformed))
	}
	p.Settings = m.Body
	return p, nil
}

// Listener returns the socket of that name, once, or nil. It is the caller's.
func (p *Predecessor) Listener(name string) *os.File {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.listeners[name]
	delete(p.listeners, name)
	return f
}

// Close ends the connection, and closes what nobody has asked for.
func (p *Predecessor) Close() error {
	p.dropListeners()
	return p.Conn.Close()
}

func (p *Predecessor) dropListeners() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.listeners {
		f.Close()
	}
	clear(p.listeners)
}

// Refuse says why the new process cannot go on.
func (p *Predecessor) Refuse(why error) {
	text := why.Error()
	_ = p.Send(kindRefused, []byte(text[:min(len(text), maxReason)]))
}

// Ready says that the new process is, and has MoveTimeout begin with the next message.
func (p *Predecessor) Ready(body []byte) error {
	if err := p.Send(kindReady, body); err != nil {
		return err
	}
	return p.SetDeadline(time.Now().Add(ReadyTimeout + MoveTimeout))
}

// Taken says that the new process could go on, and waits until it shall. An old process that does not want it kills it:
// one that is gone without a word has died, and nobody else has what it had.
func (p *Predecessor) Taken() error {
	if err := p.Send(kindTaken, nil); err != nil {
		return err
	}
	m, err := p.Receive()
	m.Close()
	if err == nil && m.Kind != kindGo {
		return fmt.Errorf("%w: message %d instead of go", ErrMalformed, m.Kind)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("the old process has not let go")
	}
	return nil
}

// GoOn lets those go on who Wait, when all is taken.
func (p *Predecessor) GoOn() {
	p.once.Do(func() {
		_ = p.Close()
		close(p.gone)
	})
}

// Wait returns true when the process may do what only one may: at once if it has no Predecessor, else after GoOn. False:
// ctx has ended.
func (p *Predecessor) Wait(ctx context.Context) bool {
	if p == nil {
		return true
	}
	select {
	case <-p.gone:
		return true
	case <-ctx.Done():
		return false
	}
}

// Pair returns two who could be an old and a new process, but are the same one. The old one's settings and offers are
// sent by offer.
func Pair(offer func(*Successor) error) (*Successor, *Predecessor, error) {
	here, there, err := pair()
	if err != nil {
		return nil, nil, err
	}
	s := &Successor{Conn: here, readyIn: ReadyTimeout}
	other, err := newConn(dup(there))
	there.Close()
	if err != nil {
		_ = here.Close()
		return nil, nil, err
	}
	offered := make(chan error, 1)
	go func() { offered <- offer(s) }()
	p, err := meet(other)
	if err := errors.Join(err, <-offered); err != nil {
		_ = here.Close()
		return nil, nil, err
	}
	return s, p, nil
}
