package warm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/hostlist"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// Bounds of a command that prints nodes.
const (
	commandWithin = 30 * time.Second
	commandGrace  = time.Second // for what it left running with its output open
	maxPrinted    = 4 << 20     // bytes
	maxSaid       = 200         // bytes of its errors
)

// nodesError says why the nodes of a group are not known. It is told to everybody, and its details, which may have whatever is in a file or
// a command says, are for the log.
type nodesError struct {
	error
	details string
}

func (e *nodesError) Unwrap() error { return e.error }

// ReadNodes returns the nodes of a group: Names, those in File, or those that Command prints. A group without nodes is an error
// that wraps hostlist.ErrEmpty. No error has the text of Command, of what it says, or of File.
func ReadNodes(ctx context.Context, g *Group) ([]string, error) {
	switch {
	case g.File != "":
		names, err := hostlist.Parse([]string{"@" + g.File}, hostlist.Options{})
		return names, unlisted("file "+g.File, err)
	case g.Command == "":
		return g.Names, nil
	}
	of := "command of nodes." + g.Name
	printed, err := run(ctx, g.Command)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", of, err)
	}
	open := func(string) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(printed)), nil }
	names, err := hostlist.Parse([]string{"@-"}, hostlist.Options{Open: open})
	if wrong := new(hostlist.SyntaxError); errors.As(err, &wrong) {
		wrong.File = of + ","
	}
	return names, unlisted(of, err)
}

// unlisted words why there are no nodes in what was read.
func unlisted(of string, err error) error {
	var system syscall.Errno
	switch {
	case err == nil:
		return nil
	case errors.Is(err, hostlist.ErrEmpty):
		return fmt.Errorf("%s: %w", of, hostlist.ErrEmpty)
	case errors.As(err, &system):
		return fmt.Errorf("%s: %w", of, system)
	}
	return &nodesError{fmt.Errorf("%s: no list of nodes; the log says where", of), err.Error()}
}

// run returns what a command prints. Whatever the command has started ends with it, or with ctx.
func run(ctx context.Context, command string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandWithin)
	defer cancel()
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // A group of its own, which a signal reaches as a whole.
	cmd.WaitDelay = commandGrace
	out, errs := bounded{most: maxPrinted, ends: true}, bounded{most: maxSaid}
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Start()
	if err == nil {
		awaitGroup(ctx, cmd.Process.Pid)
		err = cmd.Wait()
	}
	said, _, _ := strings.Cut(strings.TrimSpace(string(errs.data)), "\n")
	switch {
	case out.cut:
		return nil, fmt.Errorf("prints more than %d bytes", maxPrinted)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, fmt.Errorf("does not end within %v", commandWithin)
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil && said != "":
		return nil, &nodesError{fmt.Errorf("%w; the log has what it says", err), printable.Line(said)}
	}
	return out.data, err
}

// awaitGroup waits until a process has ended or ctx has, and kills what is left of its group. Nobody waits for the process before, so its number cannot be
// that of others.
func awaitGroup(ctx context.Context, pid int) {
	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(killed)
		_ = unix.Kill(-pid, unix.SIGKILL)
	})
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	if !stop() {
		<-killed
	}
	_ = unix.Kill(-pid, unix.SIGKILL) // If the process was alone, it is a zombie, which takes no harm.
}

// bounded keeps the first bytes.
type bounded struct {
	data []byte
	most int
	ends bool // more is an error, so that whoever prints it ends
	cut  bool
}

func (b *bounded) Write(p []byte) (int, error) {
	room := min(len(p), b.most-len(b.data))
	b.data = append(b.data, p[:room]...)
	if b.cut = b.cut || room < len(p); b.cut && b.ends {
		return room, io.ErrShortWrite
	}
	return len(p), nil
}
