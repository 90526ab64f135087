package node

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// stockServer serves a cache until the test ends. The function returns how somebody with the key of a role reaches it.
func stockServer(t *testing.T) (s *Node, keys string, config func(identity.Role) ring.Config) {
	t.Helper()
	return stockServerAt(t, filepath.Join(t.TempDir(), "cache"))
}

func stockServerAt(t *testing.T, store string) (s *Node, keys string, config func(identity.Role) ring.Config) {
	t.Helper()
	keys = filepath.Join(t.TempDir(), "keys")
	if err := identity.Init(keys, identity.InitOptions{Validity: time.Hour}); err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Keys: keys, Cache: store, Listen: "127.0.0.1:0", Hint: kindTold, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	node, err := ring.NewNode(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- node.Serve(s.listeners[0]) }()
	t.Cleanup(func() {
		_ = node.Shutdown(context.Background())
		<-served
	})
	return s, keys, func(role identity.Role) ring.Config {
		id, err := identity.Load(keys, role)
		if err != nil {
			t.Fatal(err)
		}
		return ring.Config{Nodes: []ring.Peer{{Name: "n1", Addrs: []string{s.Addr().String()}}}, TLS: func(node string) *tls.Config {
			return id.ClientConfig(ring.ALPNControl, node)
		}}
	}
}

// moveName has a name lead to an image of one layer, by the hand of somebody with a role.
func moveName(t *testing.T, s *Node, name string, role ring.Role, by, layer string) (digest.Digest, error) {
	t.Helper()
	r, data := request(t, meta.Transfer{Kind: meta.KindImage, Ref: name}, layer)
	r.Role, r.Sender = role, by
	sink, err := s.cfg.Accept(t.Context(), r)
	if err == nil {
		play(t, sink, r, data, true)
	}
	return r.Blobs[len(r.Blobs)-1].Digest, err
}

// Two warmers with different lists and a sender say, over the ring, what a node should keep: each answer of the node is what its
// cache then does, and the second warmer does not get the name of the first.
func TestWarmersAndSender(t *testing.T) {
	s, keys, config := stockServer(t)
	warmer, err := identity.Load(keys, identity.Warmer)
	if err != nil {
		t.Fatal(err)
	}
	const name = "localhost/a:latest"
	ask := func() ring.HeldImage {
		t.Helper()
		replies, err := ring.Ask(t.Context(), config(identity.Viewer), ring.Question{Images: []ring.Image{{Name: name}}})
		if err != nil || replies[0].State != "" || len(replies[0].Images) != 1 {
			t.Fatalf("%+v, %v", replies, err)
		}
		return replies[0].Images[0]
	}
	want := func(role identity.Role, owner string, wishes ...ring.Wish) string {
		t.Helper()
		replies, err := ring.Want(t.Context(), config(role), owner, wishes)
		if err != nil {
			t.Fatal(err)
		}
		return replies[0].Cause.Text
	}
	move := func(role ring.Role, by, layer string) (digest.Digest, error) {
		return moveName(t, s, name, role, by, layer)
	}
	owners := func(what string, named digest.Digest, owner string, by ...string) {
		t.Helper()
		if h := ask(); h.State != ring.HoldsAll || h.Named != named || h.NameOwner != owner || !slices.Equal(h.Owners, by) {
			t.Errorf("%s: %+v", what, h)
		}
	}
	if h := ask(); h.State != ring.HoldsNone || h.Digest != "" {
		t.Errorf("%+v", h)
	}
	first, err := move(ring.RoleWarmer, warmer.Name, "first")
	if err != nil {
		t.Fatal(err)
	}
	owners("first", first, "")
	if why := want(identity.Warmer, warmer.Name, ring.Wish{Name: name, Digest: first, Keep: 2}); why != "" {
		t.Error(why)
	}
	owners("wanted", first, warmer.Name, warmer.Name)
	if why := want(identity.Warmer, "local", ring.Wish{Name: name, Digest: first, Pin: true}); !strings.Contains(why, "not those of the warmer") {
		t.Errorf("the wishes of the node itself: %q", why)
	}
	_, err = move(ring.RoleWarmer, "other", "second")
	if refused := new(ring.RefusedError); !errors.As(err, &refused) || refused.Why != ring.RefusesInUse || !strings.Contains(err.Error(), "is of the warmer "+warmer.Name) {
		t.Errorf("another warmer: %v", err)
	}
	second, err := move(ring.RoleSender, "boss", "second")
	if err != nil {
		t.Fatal(err)
	}
	owners("moved by a sender", second, "")
	if why := want(identity.Sender, "local", ring.Wish{Name: name, Digest: second, Pin: true}); why != "" {
		t.Error(why)
	}
	owners("pinned", second, "", "local")
	if why := want(identity.Sender, "local", ring.Wish{Name: name, Digest: first, Pin: true}); !strings.Contains(why, "not in the cache") {
		t.Errorf("a pin of what the name does not lead to: %q", why)
	}
	_, collected := s.cache.GC(t.Context(), cache.GCOptions{Limits: cache.Limits{Max: 1}})
	if again, err := move(ring.RoleWarmer, warmer.Name, "first"); err != nil || collected != nil || again != first {
		t.Errorf("%s, %v, %v", again, err, collected)
	}
	owners("moved back", first, warmer.Name, "local", warmer.Name)
}
