package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/metrics"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/warmer"
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
	verbose bool
}

func newWarm() *cobra.Command {
	f := &warmFlags{}
	cmd := &cobra.Command{
		Use:    "warm",
		Hidden: true,
		Short:  "Keep listed images in the caches of listed nodes",
		Args:   exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
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
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "log also what the rings do")
	return cmd
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

// run keeps the list warm until ctx ends.
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
	conf := warmer.Config{Keys: list.Keys, Cache: f.cache, Software: software(), Log: log}
	if page != nil {
		conf.Watch = page.ring
	}
	effects, err := warmer.New(conf)
	if err != nil {
		return err
	}
	socket, err := warmer.ListenSocket(list.Socket)
	if err != nil {
		return err
	}
	reload := make(chan struct{})
	c := warm.NewController(warm.Config{List: f.read, Reload: reload, Effects: effects, State: stateDir(list.State, log), Log: log})
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
	return c.Run(ctx)
}

// stateDir returns the directory of the state. One that cannot be made is in the log, and then in the status, as nothing can be kept there.
func stateDir(dir string, log *slog.Logger) durable.FS {
	if err := os.MkdirAll(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		log.Error("nothing is kept over a restart", "error", err)
	}
	return durable.Dir(dir)
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
