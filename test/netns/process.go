package netns

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// Process is a running program whose output is kept, line by line.
type Process struct {
	cmd *exec.Cmd

	mu    sync.Mutex
	lines []string
	more  chan struct{} // it is closed and replaced when lines grows

	done chan struct{}
	err  error // of Wait; read after done
}

// Start starts cmd. Its standard output and error must not be set; Start reads both as one.
func Start(cmd *exec.Cmd) (*Process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		return nil, err
	}
	p := &Process{cmd: cmd, more: make(chan struct{}), done: make(chan struct{})}
	go p.read(r)
	return p, nil
}

func (p *Process) read(r io.ReadCloser) {
	defer r.Close()
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			p.mu.Lock()
			p.lines = append(p.lines, strings.TrimRight(line, "\n"))
			close(p.more)
			p.more = make(chan struct{})
			p.mu.Unlock()
		}
		if err != nil {
			break
		}
	}
	p.err = p.cmd.Wait()
	close(p.done)
}

// Line waits for the first line of output with text in it, and returns it. It fails
// when the process ends without one.
func (p *Process) Line(ctx context.Context, text string) (string, error) {
	for next, ended := 0, false; ; {
		p.mu.Lock()
		lines, more := p.lines, p.more
		p.mu.Unlock()
		for ; next < len(lines); next++ {
			if strings.Contains(lines[next], text) {
				return lines[next], nil
			}
		}
		if ended {
			return "", fmt.Errorf("%s ended without %q: %v\n%s", p.name(), text, p.err, p.Output())
		}
		select {
		case <-more:
		case <-p.done:
			ended = true // the last lines have to be looked at once more
		case <-ctx.Done():
			return "", fmt.Errorf("%s: no %q: %w\n%s", p.name(), text, context.Cause(ctx), p.Output())
		}
	}
}

func (p *Process) name() string { return strings.Join(p.cmd.Args, " ") }

// Output returns all that the process has written so far.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// Pid is the process's.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends sig. It does nothing if the process has ended.
func (p *Process) Signal(sig os.Signal) { p.cmd.Process.Signal(sig) }

// Done is closed when the process has ended and all its output is read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait returns the exit status, or -1 if a signal ended the process.
func (p *Process) Wait(ctx context.Context) (int, error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("%s: still running: %w\n%s", p.name(), context.Cause(ctx), p.Output())
	}
}

// State returns what the system counted about a process that has ended.
func (p *Process) State() *os.ProcessState { return p.cmd.ProcessState }

// Kill ends the process at once.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.done
}
