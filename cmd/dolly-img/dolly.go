package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/dolly"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/node"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/hostlist"
)

// dollyName is the name of the command, and the name of the program that makes it the only command.
const dollyName = "dolly"

func newDolly() *cobra.Command {
	return &cobra.Command{
		Use:   dollyName,
		Short: "Take the command lines and configuration files of dolly",
		Long: `Dolly takes the command lines and the configuration files of dolly, the cloning tool of ETH
Zürich that SUSE ships, and prints what that prints. A program that is called dolly, as a link to
this one, is this command alone.

` + dolly.Usage,
		Example: `  dolly -v                                                             # on each node
  dolly -s -v -o /tmp/dolly.log -I /tmp/sle15.sif -O /data/sle15.sif -H sle152,sle153,sle154
  dolly -v -s -f /etc/dolly.cfg`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := dolly.Parse(args)
			switch {
			case err != nil:
				return &usageError{err: err}
			case o.Help:
				fmt.Fprint(cmd.OutOrStdout(), dolly.Usage)
				return nil
			case o.Version:
				fmt.Fprintf(cmd.ErrOrStderr(), "Dolly version %s, %s\n", thisBuild().version, software())
				return nil
			case o.IsServer():
				return dollyServer(cmd, o, args)
			}
			return dollyClient(cmd, o)
		},
	}
}

// dollyClient is dolly on a node: it takes part in one transfer, unless a daemon does.
func dollyClient(cmd *cobra.Command, o *dolly.Options) error {
	listen := o.Own.Listen
	if listen == "" {
		listen = ":" + strconv.Itoa(ring.DefaultPort)
	}
	already := func() error {
		fmt.Fprintf(cmd.ErrOrStderr(), "dolly-img: a node of this cluster listens on %s already, and takes the transfer\n", listen)
		return nil
	}
	if node.Serves(cmd.Context(), o.Own.Keys, listen) {
		return already()
	}
	limitMemory()
	outliveReaders()
	ctx, watch, end := watchStall(cmd.Context(), time.Duration(o.Stall)*time.Second)
	defer end()
	w := newDollyWords(cmd.ErrOrStderr(), o.Verbose)
	w.stall, w.watch = o.Stall, watch
	log := slog.New(slog.NewTextHandler(w.words, &slog.HandlerOptions{Level: slog.LevelWarn}))
	n, err := node.New(node.Config{
		Keys: o.Own.Keys, Cache: o.Own.Cache, Listen: listen, Software: software(), Stdout: cmd.OutOrStdout(), Log: log, Hint: hintOf,
		Began: w.begin, Progress: w.progress, Ended: w.end,
	})
	if kind, _ := errkind.Of(err); kind == "listen-taken" && node.Serves(ctx, o.Own.Keys, listen) {
		return already() // it began meanwhile
	}
	if err != nil {
		return err
	}
	if strings.HasSuffix(listen, ":0") {
		w.screen.printf("listening on %s", n.Addr())
	}
	w.listening(n.Addr())
	err = n.Receive(ctx)
	if cause := new(stalled); errors.As(context.Cause(ctx), &cause) && errors.Is(err, node.ErrInterrupted) {
		return &statusError{ring.ExitSource, cause}
	}
	if errors.Is(err, node.ErrInterrupted) {
		return &statusError{ring.ExitInterrupted, err}
	}
	return err
}

// portOf returns the port of an address, or the usual one.
func portOf(a net.Addr) int {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.Port
	}
	return ring.DefaultPort
}

// dollyWords prints what a client says with -v.
type dollyWords struct {
	screen  *screen
	words   *dolly.Client
	verbose bool
	port    int
	stall   int         // seconds of -a
	watch   *stallWatch // of -a
	// size is that of the file in bytes, -1 while it is not known. unsynced says that the transfer makes nothing durable.
	size     int64
	unsynced bool
	// printing says that progress is printed just now.
	printing atomic.Bool
}

func newDollyWords(w io.Writer, verbose bool) *dollyWords {
	s := newScreen(w)
	return &dollyWords{screen: s, words: dolly.NewClient(w, s.hasLive()), verbose: verbose}
}

// listening says that the client waits. Without -v only somebody at a terminal is told, who may wonder, and no script.
func (w *dollyWords) listening(at net.Addr) {
	w.port = portOf(at)
	switch {
	case w.verbose:
		w.words.Listening(kernelBuffer("tcp_rmem"), w.stall)
	case w.screen.tty:
		w.screen.printf("waiting for a transfer on port %d; -h for help", w.port)
	}
}

func (w *dollyWords) begin(r ring.Request) {
	w.watch.alive()
	m, err := meta.Decode(r.Meta)
	if !w.verbose || err != nil {
		return
	}
	w.unsynced, w.size = m.NoSync, 0
	for _, b := range r.Blobs {
		if w.size += b.Size; b.Size < 0 {
			w.size = -1
			break
		}
	}
	says := r.Blobs[0].Annotations
	p := dolly.Parameters{
		Input: dolly.Path{Path: cmp.Or(says[annotationInput], says[v1.AnnotationTitle])}, Output: dolly.Path{Path: m.Output}, Dummy: m.Discard,
		Port: w.port, Host: r.Node, Server: r.Sender,
	}
	if m.Split {
		p.Output.Split, p.Output.Each = true, r.Blobs[0].Size
	}
	// The list is only printed, so one that cannot be read is none.
	if p.Nodes, err = hostlist.Parse([]string{says[annotationNodes]}, hostlist.Options{Open: noFile}); err != nil {
		p.Nodes = []string{r.Node}
	}
	p.Me = dolly.Place(p.Nodes, r.Node)
	w.words.Began(p, time.Now())
}

// progress does not wait until somebody reads what it prints: a node that does would not report to the server either, and fail.
func (w *dollyWords) progress(p ring.NodeProgress) {
	w.watch.node(p)
	if !w.verbose || !w.printing.CompareAndSwap(false, true) {
		return
	}
	now := time.Now()
	go func() {
		defer w.printing.Store(false)
		w.words.Progress(now, p.Received)
	}()
}

func (w *dollyWords) end(o ring.Outcome) {
	switch {
	case !w.verbose:
	case !o.State.Good():
		w.words.Break()
	default:
		size := w.size
		if size < 0 { // nothing of a stream can be there before
			size = o.Bytes
		}
		w.words.Ended(o.Bytes, size, time.Duration(o.Seconds*float64(time.Second)), w.unsynced)
	}
}

// noFile keeps a list of another machine from naming files of this one.
func noFile(name string) (io.ReadCloser, error) { return nil, fs.ErrPermission }

// kernelBuffer returns the usual size of a TCP buffer, in bytes.
func kernelBuffer(name string) int {
	b, err := os.ReadFile("/proc/sys/net/ipv4/" + name)
	if err != nil {
		return 0
	}
	return dolly.BufferSize(string(b))
}
