// Package launch runs nodes as processes of their own, on this machine, for the demo
// and for tests. A node is ready when it logs where it listens, so that nobody has to sleep.
package launch

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"time"
)

// ready is the log line of dolly-img daemon and receive.
var ready = regexp.MustCompile(`msg=listening address=(\S+)`)

// keep is how much of a node's log is remembered, in bytes.
const keep = 16 << 10

// Process is one node.
type Process struct {
	// Addr is where it listens.
	Addr string

	cmd *exec.Cmd
	log tail
	mu  sync.Mutex
	// want has the lines of the log that somebody waits for.
	want []wanted
	done chan struct{}
	// err is how the process ended. It is set before done is closed.
	err error
}

// Start runs cmd, a dolly-img daemon or receive, and returns when it listens. Start reads its
// standard error; the caller may set the rest of cmd. The process is killed when the one that
// started it ends, so that none is left behind.
func Start(ctx context.Context, cmd *exec.Cmd) (*Process, error) {
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	// The process has a group of its own, so that ^C in the terminal reaches only the program that started it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	addr := make(chan string, 1)
	go p.follow(stderr, addr)
	select {
	case p.Addr = <-addr:
		return p, nil
	case <-p.done:
		return nil, fmt.Errorf("it ended at once (%v) and said: %s", p.err, p.Log())
	case <-ctx.Done():
		p.Kill()
		return nil, ctx.Err()
	}
}

// wanted is a line of the log that somebody waits for. Seen gets a value when it comes.
type wanted struct {
	line *regexp.Regexp
	seen chan<- struct{}
}

// Await returns a function that waits until the process has logged a line that matches since Await was called.
func (p *Process) Await(line *regexp.Regexp) (wait func(ctx context.Context) error) {
	seen := make(chan struct{}, 1)
	p.mu.Lock()
	p.want = append(p.want, wanted{line, seen})
	p.mu.Unlock()
	return func(ctx context.Context) error {
		select {
		case <-seen:
			return nil
		case <-p.done:
		case <-ctx.Done():
		}
		return fmt.Errorf("no line %q in the log: %s", line, p.Log())
	}
}

// tell takes a line of the log, and wakes those who wait for it.
func (p *Process) tell(line []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.want = slices.DeleteFunc(p.want, func(w wanted) bool {
		hit := w.line.Match(line)
		if hit {
			w.seen <- struct{}{}
		}
		return hit
	})
}

// follow reads the log to its end, then waits for the process.
func (p *Process) follow(stderr io.Reader, addr chan<- string) {
	lines := bufio.NewReader(stderr)
	for {
		line, err := lines.ReadSlice('\n')
		p.log.write(line)
		p.tell(line)
		if m := ready.FindSubmatch(line); m != nil {
			select {
			case addr <- string(m[1]):
			default:
			}
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			break
		}
	}
	p.err = p.cmd.Wait()
	close(p.done)
}

// Pid returns its process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Log returns the end of its log.
func (p *Process) Log() string { return p.log.String() }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait returns how the process ended, as exec.Cmd does.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Kill ends the process as a power failure would, and waits for it.
func (p *Process) Kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// Stop asks the process to end, and waits for it. It kills the process after the grace time.
func (p *Process) Stop(grace time.Duration) error {
	p.signal(syscall.SIGTERM)
	timer := time.AfterFunc(grace, func() { p.signal(syscall.SIGKILL) })
	defer timer.Stop()
	return p.Wait()
}

// Signal sends s to the process. It does nothing if the process has ended.
func (p *Process) Signal(s syscall.Signal) { p.signal(s) }

// signal sends s to the group of the process, because programs that the process started would keep its
// standard error open. The id cannot belong to another process as long as nobody has waited for this one.
func (p *Process) signal(s syscall.Signal) {
	select {
	case <-p.done:
	default:
		_ = syscall.Kill(-p.Pid(), s)
	}
}

// tail remembers the end of what was written.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) write(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - keep; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf))
}
