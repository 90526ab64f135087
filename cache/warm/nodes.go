package warm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"github.com/dolly-img/dolly-img/ring/hostlist"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// Bounds of a command that prints nodes.
const (
	commandWithin = 30 * time.Second
	commandGrace  = time.Second // for what it left running with its output open
	maxPrinted    = 16 << 20    // bytes
)

// ReadNodes returns the nodes of a group: Names, those in File, or those that Command prints. A group without nodes is an error
// that wraps hostlist.ErrEmpty. No error has the text of Command.
func ReadNodes(ctx context.Context, g *Group) ([]string, error) {
	switch {
	case g.File != "":
		return hostlist.Parse([]string{"@" + g.File}, hostlist.Options{})
	case g.Command == "":
		return g.Names, nil
	}
	printed, err := run(ctx, g.Command)
	if err == nil {
		open := func(string) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(printed)), nil }
		var names []string
		if names, err = hostlist.Parse([]string{"@-"}, hostlist.Options{Open: open}); err == nil {
			return names, nil
		}
	}
	return nil, fmt.Errorf("command of nodes.%s: %w", g.Name, err) // without its text, which may have a password
}

func run(ctx context.Context, command string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.WaitDelay = commandGrace
	var out, errs bounded
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	switch said := strings.TrimSpace(string(errs.data)); {
	case out.cut:
		return nil, fmt.Errorf("prints more than %d bytes", maxPrinted)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, fmt.Errorf("does not end within %v", commandWithin)
	case err != nil && said != "":
		return nil, fmt.Errorf("%w: %s", err, printable.Line(said[:min(len(said), 200)]))
	}
	return out.data, err
}

// bounded keeps the first maxPrinted bytes.
type bounded struct {
	data []byte
	cut  bool
}

func (b *bounded) Write(p []byte) (int, error) {
	room := min(len(p), maxPrinted-len(b.data))
	b.data = append(b.data, p[:room]...)
	b.cut = b.cut || room < len(p)
	return len(p), nil
}
