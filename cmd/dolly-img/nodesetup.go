package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// nodeRules are the keys and the policy of a node, as they were read at one time. They are put
// in force together.
type nodeRules struct {
	id     *identity.Identity
	policy *identity.Policy
	access cache.Access
}

// nodeKeys is the directory of a node's keys, absolute: it is named in hints that are read elsewhere.
func nodeKeys(flag string) (string, error) {
	dir, err := identity.Find(flag)
	if err != nil {
		return "", err
	}
	return filepath.Abs(dir)
}

// readRules reads them from the directory dir.
func readRules(dir string) (*nodeRules, error) {
	id, err := identity.Load(dir, identity.Node)
	if err != nil {
		return nil, err
	}
	policy, err := identity.LoadPolicy(dir)
	if err != nil {
		return nil, err
	}
	access, err := cacheAccess(policy)
	if err != nil {
		return nil, err
	}
	return &nodeRules{id: id, policy: policy, access: access}, nil
}

func (r *nodeRules) limits() cache.Limits {
	return cache.Limits{Max: r.policy.Cache.Max, Free: r.policy.Cache.Free}
}

// nodeSetup is a node that is ready to serve.
type nodeSetup struct {
	cfg       ring.NodeConfig // it begins with
	keys      string          // directory
	rules     atomic.Pointer[nodeRules]
	cache     *cache.Cache
	stdout    io.Writer    // where a transfer may write, or nil
	access    cache.Access // to the cache, since the start
	listeners []net.Listener
	log       *slog.Logger
}

// setup reads keys and policy, opens the cache and listens. stdout is where a
// transfer may write, or nil.
func (f *nodeFlags) setup(stderr, stdout io.Writer) (*nodeSetup, error) {
	limitMemory()
	outliveReaders()
	dir, err := nodeKeys(f.keys)
	if err != nil {
		return nil, err
	}
	rules, err := readRules(dir)
	if err != nil {
		return nil, err
	}
	where, err := cacheDir(f.cache)
	if err != nil {
		return nil, err
	}
	store, err := cache.Open(where)
	if err != nil {
		return nil, err
	}
	s := &nodeSetup{keys: dir, access: rules.access, cache: store, stdout: stdout, log: nodeLog(stderr, f.verbose)}
	store.SetLog(s.log)
	store.SetLimits(rules.limits())
	if err := store.SetAccess(rules.access); err != nil {
		return nil, hintf("the daemon has to own all of the cache, and be in the group: see [cache] in policy.toml", "%w", err)
	}
	cleanParts(store, s.log)
	if s.listeners, err = listen(f.listen); err != nil {
		return nil, err
	}
	s.rules.Store(rules)
	s.cfg = s.config(rules)
	return s, nil
}

// config is what the ring needs to serve under rules.
func (s *nodeSetup) config(rules *nodeRules) ring.NodeConfig {
	a := &acceptor{policy: rules.policy, cache: s.cache, stdout: s.stdout, log: s.log}
	return ring.NodeConfig{
		TLS:        rules.id.ServerConfig(ring.ALPNControl, ring.ALPNData),
		DataTLS:    clientTLS(rules.id, ring.ALPNData),
		SenderName: senderName,
		Accept:     a.accept,
		Finished:   a.finished,
		AllowPlain: rules.policy.Data.Plain,
		Rate:       rules.policy.Limits.Rate,
		Transfers:  rules.policy.Limits.Transfers,
		Software:   software(),
		Platform:   nodePlatform(),
		Log:        s.log,
	}
}

// reload reads keys and policy again and puts them in force for what begins from now on. When
// anything is wrong with them all of the old stays in force.
func (s *nodeSetup) reload(node *ring.Node) {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // it does not fail
	notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000))
	rules, err := readRules(s.keys)
	if err == nil && rules.access != s.access {
		// Every file of the cache would change, while others read and write it.
		err = hintf("undo that change, or restart the daemon", "policy: [cache] mode and group are put in force by a start of the daemon only")
	}
	if err == nil {
		err = node.Reconfigure(s.config(rules))
	}
	if err != nil {
		s.log.Error("reload refused, keys and policy are in force as they were", errorAttrs(err)...)
		notify(daemon.SdNotifyReady + "\nSTATUS=reload refused, keys and policy are as they were: " + printable(err.Error()))
		return
	}
	s.cache.SetLimits(rules.limits())
	s.rules.Store(rules)
	s.log.Info("reloaded; running transfers keep what they began with", "running", node.Running())
	s.describe()
	notify(daemon.SdNotifyReady + "\nSTATUS=")
}

// errorAttrs are an error and its hint for the log.
func errorAttrs(err error) []any {
	attrs := []any{"error", printable(err.Error())}
	if hint := hintOf(err); hint != "" {
		attrs = append(attrs, "hint", printable(hint))
	}
	return attrs
}

// introduce logs what program this is and what is in force.
func (s *nodeSetup) introduce() {
	b := thisBuild()
	s.log.Info("starting", "version", b.version, "commit", orDash(b.commit), "modified", b.modified, "go", b.goLang, "protocol", protocols())
	s.describe()
}

func (s *nodeSetup) describe() {
	rules := s.rules.Load()
	own, authority := rules.id.Until()
	s.log.Info("keys", "directory", s.keys, "certificate", holder(rules.id.Peer), "cluster", rules.id.Cluster,
		"until", date(own), "authority-until", date(authority), "revoked", rules.id.Revocations())
	s.log.Info("policy", "permits", policyText(rules.policy))
	for _, warning := range policyWarnings(rules.policy) {
		s.log.Warn("policy", "warning", warning)
	}
	s.warnEnding()
}

// holder says for whom a node's certificate is.
func holder(p identity.Peer) string {
	if p.Name == "" {
		return "of all nodes"
	}
	return "of node " + p.Name
}

// warnEvery is how often a daemon warns of certificates that end soon.
const warnEvery = 24 * time.Hour

// warnEnding logs which certificates end soon.
func (s *nodeSetup) warnEnding() {
	now := time.Now()
	for _, end := range s.rules.Load().id.Ending(now) {
		level := slog.LevelWarn
		if now.After(end.After) {
			level = slog.LevelError
		}
		s.log.Log(context.Background(), level, end.String(now), "hint", "on the server: "+renewHint)
	}
}

// renewHint is what to do about certificates that end soon, on the server.
const renewHint = "dolly-img keys renew; then copy the new files to the machines that need them, as it says"

// keepWarning does so every day.
func (s *nodeSetup) keepWarning(ctx context.Context) {
	tick := time.NewTicker(warnEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.warnEnding()
		}
	}
}

// policyText is what a policy permits, in one line.
func policyText(p *identity.Policy) string {
	path, found := p.File()
	if !found {
		return fmt.Sprintf("only the cache: there is no %s", path)
	}
	parts := []string{"the cache"}
	for _, o := range p.Outputs {
		text := "files below " + o.Dir
		if o.Overwrite {
			text += ", also in place of others"
		}
		parts = append(parts, text)
	}
	if p.Data.Plain {
		parts = append(parts, "plain data links")
	}
	if p.Limits.Rate > 0 {
		parts = append(parts, "at most "+bytesText(p.Limits.Rate)+"/s")
	}
	if p.Limits.Transfers > 0 {
		parts = append(parts, fmt.Sprintf("at most %d transfers", p.Limits.Transfers))
	}
	if p.Cache.Max > 0 {
		parts = append(parts, "a cache of at most "+bytesText(p.Cache.Max))
	}
	if p.Cache.Free > 0 {
		parts = append(parts, bytesText(p.Cache.Free)+" stay free")
	}
	if p.Cache.Mode != 0 {
		parts = append(parts, fmt.Sprintf("cache files of mode %#o", p.Cache.Mode))
	}
	if p.Cache.Group != "" {
		parts = append(parts, "cache files of group "+p.Cache.Group)
	}
	return strings.Join(parts, "; ")
}

// policyWarnings are lines about what a policy permits that is hardly meant, or cannot be used.
func policyWarnings(p *identity.Policy) []string { return append(p.Warnings(), unusable(p)...) }

// unusable says which directories that a policy permits cannot be written to.
func unusable(p *identity.Policy) (warnings []string) {
	for _, o := range p.Outputs {
		if err := unix.Access(o.Dir, unix.W_OK|unix.X_OK); err != nil {
			text := fmt.Sprintf("output directory %s: %v", o.Dir, err)
			if err == unix.EROFS && underSystemd() {
				text += "; the unit needs ReadWritePaths=" + o.Dir + ": systemctl edit dolly-img, then systemctl restart dolly-img"
			}
			warnings = append(warnings, text)
		}
	}
	return warnings
}

// underSystemd tells whether this is a service with a unit file such as ours.
func underSystemd() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// notify tells systemd; where nobody listens that is no failure.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }

// announce logs each address, in the words that launch.Start reads.
func (s *nodeSetup) announce() {
	for _, l := range s.listeners {
		s.log.Info("listening", "address", l.Addr().String(), "cache", s.cache.Dir())
	}
}

// serve lets node accept connections on every listener. The channel gets what ended
// each of them.
func (s *nodeSetup) serve(node *ring.Node) <-chan error {
	ended := make(chan error, len(s.listeners))
	for _, l := range s.listeners {
		go func() { ended <- node.Serve(l) }()
	}
	return ended
}
