package warmer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// DefaultSocket is where a controller tells what it knows if its list does not say where.
const DefaultSocket = "/run/dolly-img/warm.sock"

// Bounds of the socket.
const (
	mostReaders   = 16                     // at once; the oldest makes room for a newer one
	readWithin    = 5 * time.Second        // until all was taken
	madeWithin    = 5 * time.Second        // the controller has its snapshot
	freshFor      = 200 * time.Millisecond // those who ask within it get the same, so that many do not keep the controller busy
	fetchWithin   = 15 * time.Second
	maxSocketPath = 107 // bytes, by the kernel
	acceptPause   = 100 * time.Millisecond
)

// A Socket is a unix socket at which a controller tells what it knows: whoever connects gets its snapshot as one JSON document (form and
// version are in the comment of package cache/warm), and then the end. Nothing is read, so nobody can have the controller do anything. Every user of
// the machine may connect. Those who read slowly or not at all hold up nobody.
type Socket struct {
	listener *net.UnixListener
	lock     *os.File

	data []byte // the last document, made then
	made time.Time

	mu      sync.Mutex
	readers []net.Conn // the oldest first
}

// ListenSocket makes the socket. It replaces one that a dead controller left behind, and nothing else: where a program answers, and where
// there is something that is no socket, it fails. Beside the socket it makes a file path.lock, which is locked as long as the controller lives, and stays.
func ListenSocket(path string) (*Socket, error) {
	s := &Socket{}
	err := s.listen(path)
	if err != nil {
		s.unlock()
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return s, nil
}

func (s *Socket) listen(path string) error {
	if len(path) > maxSocketPath {
		return fmt.Errorf("the path has %d bytes, at most %d", len(path), maxSocketPath)
	}
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return errkind.Errorf("warm-socket", "%w", err)
	}
	var err error
	s.lock, err = os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600) // others could lock what they can read
	if err == nil {
		err = durable.TryLock(durable.NewFile(s.lock))
	}
	switch {
	case errors.Is(err, durable.ErrLocked):
		return errkind.Errorf("warm-twice", "another controller answers there")
	case err != nil:
		return errkind.Errorf("warm-socket", "%w", err)
	}
	if err := removeStale(path); err != nil {
		return err
	}
	s.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return errkind.Errorf("warm-socket", "%w", cause(err))
	}
	if err := os.Chmod(path, 0o666); err != nil {
		s.listener.Close()
		return err
	}
	return nil
}

// removeStale removes a socket at which nobody listens.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errkind.Errorf("warm-socket", "something else is there, which is no socket")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		conn.Close()
		return errkind.Errorf("warm-twice", "another program answers there")
	case !errors.Is(err, unix.ECONNREFUSED): // it may live: its queue may be full
		return errkind.Errorf("warm-twice", "it is there already: %w", cause(err))
	}
	return os.Remove(path)
}

// cause returns what the system says, without what the caller says itself.
func cause(err error) error {
	if op := new(net.OpError); errors.As(err, &op) {
		return op.Err
	}
	return err
}

func (s *Socket) unlock() {
	if s.lock != nil {
		s.lock.Close()
	}
}

// Serve tells whoever connects what snapshot returns, until ctx ends, and then removes the socket. It is called once.
func (s *Socket) Serve(ctx context.Context, snapshot func(context.Context) (*warm.Snapshot, error)) {
	var work sync.WaitGroup
	defer s.unlock()
	defer work.Wait()
	defer s.dropAll()
	defer s.listener.Close()
	defer context.AfterFunc(ctx, func() { s.listener.Close() })()
	for ctx.Err() == nil {
		conn, err := s.listener.AcceptUnix()
		if err != nil { // ctx has ended, or there are too many files
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		data := s.document(ctx, snapshot)
		if data == nil || conn.CloseRead() != nil || conn.SetWriteDeadline(time.Now().Add(readWithin)) != nil {
			conn.Close()
			continue
		}
		s.admit(conn)
		work.Go(func() {
			conn.Write(data)
			s.drop(conn)
		})
	}
}

// document returns the JSON of a snapshot, or nil if there is none in time.
func (s *Socket) document(ctx context.Context, snapshot func(context.Context) (*warm.Snapshot, error)) []byte {
	if s.data != nil && time.Since(s.made) < freshFor {
		return s.data
	}
	ctx, cancel := context.WithTimeout(ctx, madeWithin)
	defer cancel()
	made, err := snapshot(ctx)
	if err != nil {
		return nil
	}
	if s.data, err = made.Encode(); err != nil {
		return nil
	}
	s.made = time.Now()
	return s.data
}

// admit takes a reader, and drops the oldest if there are too many.
func (s *Socket) admit(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.readers) == mostReaders {
		s.readers[0].Close()
		s.readers = s.readers[1:]
	}
	s.readers = append(s.readers, conn)
}

func (s *Socket) drop(conn net.Conn) {
	conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range s.readers {
		if r == conn {
			s.readers = append(s.readers[:i:i], s.readers[i+1:]...)
			return
		}
	}
}

func (s *Socket) dropAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.readers {
		r.Close()
	}
}

// FetchSnapshot asks the controller at a socket what it knows. The error wraps fs.ErrNotExist if there is no socket, and
// unix.ECONNREFUSED if a controller that is dead left it behind.
func FetchSnapshot(ctx context.Context, path string) (*warm.Snapshot, error) {
	s, err := fetch(ctx, path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, absentError(path)
	case errors.Is(err, unix.ECONNREFUSED):
		return nil, errkind.Errorf("warm-dead", "the controller does not answer at %s: %w", path, unix.ECONNREFUSED)
	case err != nil:
		return nil, fmt.Errorf("controller at %s: %w", path, err)
	}
	return s, nil
}

// absentError says that there is no socket at a path.
type absentError string

func (e absentError) Error() string { return "no controller at " + string(e) }
func (absentError) Unwrap() error   { return fs.ErrNotExist }

func fetch(ctx context.Context, path string) (*warm.Snapshot, error) {
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if info.Mode().Type() != fs.ModeSocket {
		return nil, errors.New("this is no socket")
	}
	ctx, cancel := context.WithTimeout(ctx, fetchWithin)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, cause(err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	data, err := io.ReadAll(io.LimitReader(conn, warm.MaxSnapshot+1))
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, cause(err)
	case len(data) == 0:
		return nil, errors.New("it closed the connection without an answer")
	case len(data) > warm.MaxSnapshot:
		return nil, fmt.Errorf("it says more than %d bytes", warm.MaxSnapshot)
	}
	s, err := warm.ParseSnapshot(data)
	if other := new(warm.VersionError); errors.As(err, &other) {
		return nil, errkind.Errorf("warm-version", "%w", err)
	}
	return s, err
}
