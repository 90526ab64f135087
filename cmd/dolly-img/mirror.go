package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cache/mirror"
)

const defaultMirror = "127.0.0.1:5050"

// serveMirror serves the cache at addr, "" for not at all, until stop is called.
func (s *nodeSetup) serveMirror(addr string) (stop func(), err error) {
	if addr == "" {
		return func() {}, nil
	}
	l, err := listenMirror(addr, s.access)
	if err != nil {
		return nil, err
	}
	server := &http.Server{
		Handler:           mirror.New(s.cache, s.log),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	// More than any runtime opens, and few enough to leave the daemon its descriptors.
	limited := &limitedListener{Listener: l, open: make(chan struct{}, 256), closed: make(chan struct{})}
	server.ConnState = limited.state
	go func() {
		if err := server.Serve(limited); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("mirror failed", "error", err)
		}
	}()
	s.log.Info("mirror", "address", l.Addr().String())
	if tcp, ok := l.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		s.log.Warn("the mirror has no TLS, and everybody who reaches its address can read the cache", "address", tcp.String())
	}
	if _, ok := l.Addr().(*net.TCPAddr); ok && s.access.Bits(0o666) != 0o666 {
		s.log.Warn("every user of this node can read the cache through the mirror, whatever mode policy.toml sets; unix:PATH keeps them out")
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
	}, nil
}

// limitedListener accepts no more connections than open has room for. It hands out what it accepts as it
// is, where netutil.LimitListener wraps it: only so can the kernel send a file by itself.
type limitedListener struct {
	net.Listener
	open   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.open <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.open
	}
	return conn, err
}

func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// state is told by the server of each connection.
func (l *limitedListener) state(_ net.Conn, s http.ConnState) {
	if s == http.StateClosed || s == http.StateHijacked {
		<-l.open
	}
}

func listenMirror(addr string, access cache.Access) (net.Listener, error) {
	path, ok := strings.CutPrefix(addr, "unix:")
	if !ok {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, hintf("--mirror ADDR:PORT names another one", "mirror on %s: %w", addr, bare(err))
		}
		return l, nil
	}
	// A socket that a killed daemon left answers nobody.
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			c.Close()
			return nil, fmt.Errorf("mirror on %s: another process listens there", addr)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("mirror on %s: %w", addr, err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("mirror on %s: %w", addr, bare(err))
	}
	// A user's runtime may read what the user may read on disk.
	if err := access.Socket(path); err != nil {
		l.Close()
		return nil, fmt.Errorf("mirror on %s: %w", addr, err)
	}
	return l, nil
}

// printConfig prints what a runtime needs to use the mirror at addr.
func printConfig(cmd *cobra.Command, runtime, addr, cacheFlag string) error {
	if addr == "" {
		addr = defaultMirror
	}
	out := cmd.OutOrStdout()
	if runtime != "apptainer" && strings.HasPrefix(addr, "unix:") {
		return usagef("--mirror %s: %s wants an address, not a socket", addr, runtime)
	}
	switch runtime {
	case "containerd":
		fmt.Fprintf(out, `# /etc/containerd/certs.d/_default/hosts.toml, for all registries, or with the name of one
# in place of _default. In /etc/containerd/config.toml has to be:
#   [plugins."io.containerd.grpc.v1.cri".registry]
#     config_path = "/etc/containerd/certs.d"
# and for ctr: ctr image pull --hosts-dir /etc/containerd/certs.d NAME

[host."http://%s"]
  capabilities = ["pull", "resolve"]
`, addr)
	case "podman":
		fmt.Fprint(out, `# /etc/containers/registries.conf.d/dolly-img.conf, for podman, buildah, skopeo and CRI-O; one
# part for each registry that images come from. Behind the mirror's address the colon in front of
# a port is written _, as in 127.0.0.1_5000.
`)
		for _, host := range registries(cacheFlag) {
			fmt.Fprintf(out, `
[[registry]]
location = %q
[[registry.mirror]]
location = %q
insecure = true
`, host, addr+"/"+mirror.PathName(host))
		}
	case "apptainer":
		fmt.Fprint(out, `# A SIF is started where it lies in the cache:
apptainer run $(dolly-img cache path REF)
# Another image is made a SIF of, without any registry:
apptainer build app.sif $(dolly-img cache path REF)
# dolly-img cache ls lists what may stand for REF.
`)
	default:
		return usagef("--print-config %q: want containerd, podman or apptainer", runtime)
	}
	return nil
}

// registries are those that images in the cache come from, and two that most use: an image that
// comes later should not need another configuration.
func registries(cacheFlag string) []string {
	hosts := []string{"docker.io", "quay.io"}
	if c, err := openCache(cacheFlag); err == nil {
		refs, _ := c.References() // what cannot be read has no names
		for _, r := range refs {
			if host, _, _ := strings.Cut(r.Repository, "/"); strings.ContainsAny(host, ".:") || host == "localhost" {
				hosts = append(hosts, host)
			}
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}
