package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/metrics"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/warmer"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// What a list that does not name them has.
const (
	warmList  = "/etc/dolly-img/warm.toml"
	warmKeys  = "/etc/dolly-img/warmer"
	warmState = "/var/lib/dolly-img/warm"
)

// warmFlags holds the flags of warm.
type warmFlags struct {
	config  string
	cache   string
	metrics string
	web     webFlags
	once    bool
	check   bool
	verbose bool
}

const warmLong = `Warm keeps images in the caches of nodes: it sees to it that every node of a list holds every image of
the list, under its name. It runs on the server, in the foreground, until it is told to stop.

The list is a file that says which images are wanted on which nodes, how often registries are asked whether
a tag has moved, and when nodes may be pushed to. dolly-img-warm.toml(5) explains its keys, and an
unknown one is an error. Every node is asked once a minute, or as
often as the list says, what it holds. Who lacks an image gets it from this server's own cache, as with
push. So a node that was off, was installed anew or is new is warm soon after it answers, and a registry
is asked for each image once. Nothing is ever deleted on a node: what the list does not name any more is only
no longer kept from being evicted.

Warm needs a key of its own, warmer.pem, which can fill caches and do nothing else: dolly-img keys
init makes one. The list names the directory that it is in.

On SIGHUP, which systemctl reload sends, the list is read again. If anything is wrong with it, the log and
the status say so, and the list before stays in force; --check shows it without a controller. Other
directories for keys and state, and another socket, need a restart. On SIGTERM or SIGINT running
pushes are interrupted. Nodes keep what they have of them, and the next start goes on from there.
dolly-img status, on this machine, shows what a controller knows.

With --once warm goes by the list once: it asks registries and nodes, pushes what is lacking, prints
what each image became, and exits. Where nothing is known yet of a source that does not answer, it is asked up to
three times, and warm says what it waits for. With --check it only asks, and prints what it would push. The
exit status of --once is 0 if every image is warm, on as many nodes as its list demands, and 3 if
some nodes are warm. It is 3, too, if a list of nodes could not be read, as there may be others, or a source not be asked, as
what is warm may be older than what is there. It is 4 if none is, 1 if nothing could be looked up, and 6 if it was interrupted. That of --check is what it would be
if every push ended well. A node that says that the name belongs to another warmer, or that it has no room for what it lacks, is not pushed to and not
warm. Where a node cannot tell before a push how much it lacks, since images share layers, --check says that it may not fit.`

func newWarm() *cobra.Command {
	f := &warmFlags{}
	cmd := &cobra.Command{
		Use:   "warm",
		Short: "Keep listed images in the caches of listed nodes",
		Long:  warmLong,
		Example: `  dolly-img warm --config /etc/dolly-img/warm.toml
  dolly-img warm --config warm.toml --check`,
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.once && f.check {
				return usagef("--once and --check: only one of them")
			}
			if f.once || f.check {
				return f.runOnce(cmd)
			}
			// For all other commands SIGHUP says that the terminal is gone, and main ends them. Here it means to reload.
			signal.Ignore(syscall.SIGHUP)
			hangup := make(chan os.Signal, 1)
			signal.Notify(hangup, syscall.SIGHUP)
			return f.run(cmd, hangup)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.config, "config", warmList, "`FILE` with the list")
	addCacheFlag(cmd, &f.cache)
	addMetricsFlag(cmd, &f.metrics)
	f.web.addAddr(cmd)
	fl.BoolVar(&f.once, "once", false, "go by the list once, print what became of it, and exit")
	fl.BoolVar(&f.check, "check", false, "only ask registries and nodes, and print what would be pushed")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "log also what rings do")
	return cmd
}

// effects returns what a controller works with. Its rings are shown on the page, unless that is nil.
func (f *warmFlags) effects(list *warm.List, log *slog.Logger, page *webPage) (*warmer.Effects, error) {
	c := warmer.Config{Keys: list.Keys, Cache: f.cache, Software: software(), Log: log}
	if f.verbose {
		c.RingLog = log
	}
	if page != nil {
		c.Watch = page.ring
	}
	e, err := warmer.New(c)
	if none := new(identity.KeyError); errors.As(err, &none) && none.Problem == identity.Missing {
		err = hintf("copy ca.pem and warmer.pem, which dolly-img keys init made on the server, to "+list.Keys+"; or name their directory with keys = \"DIR\" under [defaults] of the list", "%w", err)
	}
	return e, err
}

// read reads the list.
func (f *warmFlags) read() (*warm.List, error) {
	data, err := os.ReadFile(f.config)
	if err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	list, err := warm.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", f.config, err)
	}
	list.Keys, list.State, list.Socket = cmp.Or(list.Keys, warmKeys), cmp.Or(list.State, warmState), cmp.Or(list.Socket, warmer.DefaultSocket)
	return list, nil
}

// run keeps the list warm until the command is told to stop.
func (f *warmFlags) run(cmd *cobra.Command, hangup <-chan os.Signal) error {
	metricsAt, err := metricsAddress(f.metrics)
	if err != nil {
		return err
	}
	if err := f.web.check(); err != nil {
		return err
	}
	outliveReaders()
	log := nodeLog(cmd.ErrOrStderr(), f.verbose)
	list, err := f.read()
	if err != nil {
		return err
	}
	page, err := f.web.open(newScreen(cmd.ErrOrStderr()))
	if err != nil {
		return err
	}
	defer page.close()
	effects, err := f.effects(list, log, page)
	if err != nil {
		return err
	}
	state, release, err := claim(list, log)
	if err != nil {
		return err
	}
	defer release()
	socket, err := warmer.ListenSocket(list.Socket)
	if err != nil {
		return err
	}
	b := thisBuild()
	log.Info("starting", "version", b.version, "commit", orDash(b.commit), "list", f.config, "images", len(list.Images), "groups", len(list.Groups),
		"keys", list.Keys, "state", list.State, "socket", list.Socket)
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady) // status can ask from here on
	reload := make(chan struct{})
	c := warm.NewController(warm.Config{List: f.again(list, log), Reload: reload, Effects: effects, State: state, Log: log})
	if metricsAt != "" {
		unscrape, err := metrics.Serve(metricsAt, log, metrics.Controller, metricsBuild().Put, effects.PutCertificate, warmer.Metrics(c.Snapshot))
		if err != nil {
			return err
		}
		defer unscrape()
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	work.Go(func() { socket.Serve(ctx, c.Snapshot) })
	if page != nil {
		work.Go(func() { page.controller(ctx, c.Snapshot) })
	}
	go relay(ctx, hangup, reload)
	if err = c.Run(ctx); err == nil {
		log.Info("stopped")
	}
	return err
}

// again reads the list again. What only a restart can change stays as it was in first.
func (f *warmFlags) again(first *warm.List, log *slog.Logger) func() (*warm.List, error) {
	return func() (*warm.List, error) {
		list, err := f.read()
		if err == nil && (list.Keys != first.Keys || list.State != first.State || list.Socket != first.Socket) {
			log.Warn("other keys, state or socket in the list: they count from the next start on")
		}
		return list, err
	}
}

const stateLock = "lock"

// claim takes the keys and the state of a list for this process. In a state that cannot be made or written nothing is kept, which the
// log says, and later the status. The controller works without: it finds out again by asking.
func claim(list *warm.List, log *slog.Logger) (state durable.FS, release func(), err error) {
	unlockKeys, err := lockKeys(list.Keys)
	if err != nil {
		return nil, nil, err
	}
	state, release = durable.Dir(list.State), unlockKeys
	err = os.MkdirAll(list.State, 0o700)
	var f durable.File
	if err == nil {
		f, err = state.OpenFile(stateLock, os.O_RDWR|os.O_CREATE, 0o600)
	}
	if err == nil {
		release = func() { f.Close(); unlockKeys() }
		err = durable.TryLock(f)
	}
	if errors.Is(err, durable.ErrLocked) {
		release()
		return nil, nil, errkind.Errorf("warm-twice", "state %s: another controller uses it", list.State)
	}
	if err != nil {
		log.Error("nothing is kept over a restart", "state", list.State, "error", err)
	}
	return state, release, nil
}

// lockKeys locks the directory of the keys: nodes know a controller by the name in its key, and two of one name would replace
// each other's wishes and names for ever. A file system without locks is no reason not to run.
func lockKeys(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := durable.TryLock(durable.NewFile(f)); errors.Is(err, durable.ErrLocked) {
		f.Close()
		return nil, errkind.Errorf("warm-twice", "keys %s: another controller uses them", dir)
	}
	return func() { f.Close() }, nil
}

// relay passes signals on.
func relay(ctx context.Context, from <-chan os.Signal, to chan<- struct{}) {
	for {
		select {
		case <-from:
		case <-ctx.Done():
			return
		}
		select {
		case to <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
}
