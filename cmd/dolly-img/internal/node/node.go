package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/cachedir"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// nodeRules are the keys and the policy of a node. They were read at the same time, and come into force together.
type nodeRules struct {
	id     *identity.Identity
	policy *identity.Policy
	access cache.Access
}

// nodeKeys returns the directory of a node's keys. It is absolute, because hints that name it are read on other machines.
func nodeKeys(flag string) (string, error) {
	dir, err := identity.Find(flag)
	if err != nil {
		return "", err
	}
	return filepath.Abs(dir)
}

// readRules reads the keys and the policy in dir, for a node with a cache.
func readRules(dir, cacheDir string) (*nodeRules, error) {
	id, err := identity.Load(dir, identity.Node)
	if err != nil {
		return nil, err
	}
	policy, err := identity.LoadPolicy(dir, cacheDir)
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

// Config says what a node is started with.
type Config struct {
	Keys     string    // directory of the keys and the policy; "" is the usual one
	Cache    string    // directory of the cache; "" is the usual one
	Listen   string    // address, unless systemd hands over sockets
	Software string    // this program and its version, as peers are told
	Stdout   io.Writer // where a transfer may write, or nil
	Log      *slog.Logger
	// Hint returns what to do about an error, or "".
	Hint func(error) string
	// Began, Progress and Ended are called by Receive: when it takes part in a transfer, about once a second how far
	// it is, and how that ended here. They may be nil.
	Began    func(ring.Request)
	Progress func(ring.NodeProgress)
	Ended    func(ring.Outcome)
}

// Node is a node that is ready to serve.
type Node struct {
	// cfg is what the ring starts with. A reload makes another one.
	cfg      ring.NodeConfig
	keys     string // directory
	rules    atomic.Pointer[nodeRules]
	cache    *cache.Cache
	software string
	stdout   io.Writer // where a transfer may write, or nil
	// access says who may read the cache. Only a start changes it.
	access    cache.Access
	listeners []net.Listener
	log       *slog.Logger
	hint      func(error) string
	began     func(ring.Request)
	progress  func(ring.NodeProgress)
	ended     func(ring.Outcome)
	users     deviceUsers
	counts    *counts
}

// New reads the keys and the policy, opens the cache, and listens.
func New(c Config) (*Node, error) {
	dir, err := nodeKeys(c.Keys)
	if err != nil {
		return nil, err
	}
	where, err := cachedir.Dir(c.Cache)
	if err != nil {
		return nil, err
	}
	rules, err := readRules(dir, where)
	if err != nil {
		return nil, err
	}
	store, err := cache.Open(where)
	if err != nil {
		return nil, err
	}
	s := &Node{
		keys: dir, access: rules.access, cache: store, software: c.Software, stdout: c.Stdout, log: c.Log, hint: c.Hint,
		began: c.Began, progress: c.Progress, ended: c.Ended, counts: newCounts(),
	}
	store.SetLog(s.log)
	store.SetLimits(rules.limits())
	if err := store.SetAccess(rules.access); err != nil {
		return nil, errkind.Errorf("cache-access", "%w", err)
	}
	cleanParts(store, s.log)
	if s.listeners, err = listen(c.Listen); err != nil {
		return nil, err
	}
	s.rules.Store(rules)
	s.cfg = s.config(rules)
	return s, nil
}

// config returns what the ring needs to serve under rules.
func (s *Node) config(rules *nodeRules) ring.NodeConfig {
	a := &acceptor{policy: rules.policy, cache: s.cache, stdout: s.stdout, disks: devices(), users: &s.users, log: s.log, hint: s.hint}
	return ring.NodeConfig{
		TLS:        rules.id.ServerConfig(ring.ALPNControl, ring.ALPNData),
		DataTLS:    func(node string) *tls.Config { return rules.id.ClientConfig(ring.ALPNData, node) },
		Client:     clientOf,
		Permit:     a.permit,
		Accept:     a.accept,
		Finished:   func(r ring.Request, o ring.Outcome) { a.finished(r); s.counts.ended(o) },
		Refused:    func(ring.Request, string) { s.counts.transfers.Add("refused") },
		LinkFault:  s.counts.faults.Add,
		Stock:      stock{s.cache},
		AllowPlain: rules.policy.Data.Plain,
		Rate:       rules.policy.Limits.Rate,
		Transfers:  rules.policy.Limits.Transfers,
		Software:   s.software,
		Platform:   nodePlatform(),
		Log:        s.log,
	}
}

// reload reads the keys and the policy again, and puts them in force for transfers that begin from now on. If anything
// is wrong with them, everything stays as it was.
func (s *Node) reload(node *ring.Node) {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // it does not fail
	notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000))
	rules, err := readRules(s.keys, s.cache.Dir())
	if err == nil && rules.access != s.access {
		// This would change every file of the cache while others read and write it.
		err = errkind.Errorf("policy-restart", "policy: [cache] mode and group are put in force by a start of the daemon only")
	}
	if err == nil {
		err = node.Reconfigure(s.config(rules))
	}
	s.counts.refused.Store(err != nil)
	if err != nil {
		s.log.Error("reload refused, keys and policy are in force as they were", s.errorAttrs(err)...)
		notify(daemon.SdNotifyReady + "\nSTATUS=reload refused, keys and policy are as they were: " + printable.Line(err.Error()))
		return
	}
	s.cache.SetLimits(rules.limits())
	s.rules.Store(rules)
	s.log.Info("reloaded; running transfers keep what they began with", "running", node.Running())
	s.describe()
	notify(daemon.SdNotifyReady + "\nSTATUS=")
}

// errorAttrs returns an error and its hint as attributes for the log.
func (s *Node) errorAttrs(err error) []any {
	attrs := []any{"error", printable.Line(err.Error())}
	if hint := s.hint(err); hint != "" {
		attrs = append(attrs, "hint", printable.Line(hint))
	}
	return attrs
}

// describe logs which keys and which policy are in force.
func (s *Node) describe() {
	rules := s.rules.Load()
	own, authority := rules.id.Until()
	s.log.Info("keys", "directory", s.keys, "certificate", holder(rules.id.Peer), "cluster", rules.id.Cluster,
		"until", own.UTC().Format(time.DateOnly), "authority-until", authority.UTC().Format(time.DateOnly), "revoked", rules.id.Revocations())
	s.log.Info("policy", "permits", policyText(rules.policy))
	for _, line := range s.devices(rules.policy) {
		s.log.Info("device", line...)
	}
	for _, warning := range policyWarnings(rules.policy) {
		s.log.Warn("policy", "warning", warning)
	}
	s.warnEnding()
}

// holder says whom the certificate of a node is for.
func holder(p identity.Peer) string {
	if p.Name == "" {
		return "of all nodes"
	}
	return "of node " + p.Name
}

// warnEvery is how often a daemon warns of certificates that end soon.
const warnEvery = 24 * time.Hour

// warnEnding logs which certificates end soon.
func (s *Node) warnEnding() {
	now := time.Now()
	for _, end := range s.rules.Load().id.Ending(now) {
		level := slog.LevelWarn
		if now.After(end.After) {
			level = slog.LevelError
		}
		s.log.Log(context.Background(), level, end.String(now), "hint", s.hint(ending(end, now)))
	}
}

// ending returns the error that a certificate which ends soon will cause. It is only used for its hint.
func ending(end identity.End, now time.Time) error {
	return errkind.Errorf("certificate-ends", "%s", end.String(now))
}

// keepWarning calls warnEnding every day until ctx ends.
func (s *Node) keepWarning(ctx context.Context) {
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

// underSystemd reports whether this process is a service with a unit file such as ours.
func underSystemd() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// notify tells systemd the state of the daemon. It is no failure if nobody listens.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }
