package main

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/web"
	"github.com/dolly-img/dolly-img/ring"
)

// webFlags holds the flags of commands that show on a page what they do.
type webFlags struct {
	addr string // "" is no page
	wait bool   // keep the page when all is done
}

// anyWeb is the value of --web that has none: a free port of the loopback interface.
const anyWeb = ":0"

func (f *webFlags) add(cmd *cobra.Command) {
	f.addAddr(cmd)
	cmd.Flags().BoolVar(&f.wait, "web-stay", false, "keep the page of --web, with what became of every node, until ^C")
}

// addAddr adds --web alone.
func (f *webFlags) addAddr(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.addr, "web", "", "show in a browser what happens, at `ADDR`: :PORT for people on this machine only, HOST:PORT for others, too (without ADDR: a free port). The address that is printed has a token, which people need to look")
	fl.Lookup("web").NoOptDefVal = anyWeb
}

// webValue matches what follows --web as its value and not as the first argument.
var webValue = regexp.MustCompile(`^(localhost|[0-9.]+|\[[0-9A-Fa-f:.]+(%[\w.-]+)?\])?:[0-9]+$`)

// joinWeb makes --web=:8080 of --web :8080. For pflag a flag whose value can be left out has its value behind = only.
func joinWeb(args []string) []string {
	var joined []string
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == "--":
			return append(joined, args[i:]...)
		case args[i] == "--web" && i+1 < len(args) && webValue.MatchString(args[i+1]):
			joined = append(joined, "--web="+args[i+1])
			i++
		default:
			joined = append(joined, args[i])
		}
	}
	return joined
}

func (f *webFlags) check() error {
	if f.wait && f.addr == "" {
		f.addr = anyWeb
	}
	if err := web.CheckAddr(f.addr); err != nil {
		return usagef("--web %w", err)
	}
	return nil
}

// webPage is the page of a command. A nil one is none.
type webPage struct {
	server *web.Server
	screen *screen
	wait   bool
}

// open begins to serve the page, if the command is to have one, and prints its address.
func (f *webFlags) open(s *screen) (*webPage, error) {
	if f.addr == "" {
		return nil, nil
	}
	server, err := web.Listen(f.addr)
	if err != nil {
		return nil, fmt.Errorf("--web %s: %w", f.addr, err)
	}
	if server.Open() {
		s.printf("warning: other machines can reach the page, and it is not encrypted: whoever reads its traffic can look, too")
	}
	s.printf("page: %s", server.URL())
	return &webPage{server, s, f.wait}, nil
}

// stay keeps the page until ctx ends, if that is wanted, and returns err, which is printed before.
func (p *webPage) stay(ctx context.Context, err error) error {
	if p == nil || !p.wait || ctx.Err() != nil {
		return err
	}
	printError(p.screen, err)
	p.screen.printf("the page stays until ^C")
	<-ctx.Done()
	if err == nil {
		return nil
	}
	return &statusError{exitCode(err), nil}
}

// controller shows what a controller knows until ctx ends, as long as somebody looks.
func (p *webPage) controller(ctx context.Context, snapshot func(context.Context) (*warm.Snapshot, error)) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !p.server.Watched() {
			p.server.ForgetWarm()
			continue
		}
		if s, err := snapshot(ctx); err == nil {
			p.server.Warm(s)
		}
	}
}

// ringFor is how long the page shows a ring of a controller that has ended.
const ringFor = 30 * time.Second

// ring shows a ring of a controller.
func (p *webPage) ring(name string) (onNodes func(ring.NodesSnapshot), ended func(*ring.Report, error)) {
	c := p.server.Chain(name)
	return c.Snapshot, func(rep *ring.Report, err error) {
		c.Report(rep, err)
		time.AfterFunc(ringFor, c.Close)
	}
}

func (p *webPage) close() {
	if p != nil {
		p.server.Close()
	}
}
