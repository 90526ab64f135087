package node

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// lines is what was logged, a line each.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// A daemon that runs for years warns every day, of the keys that it has then.
func TestWarnsDaily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := filepath.Join(t.TempDir(), "keys")
		if err := identity.Init(keys, identity.InitOptions{Validity: 32*24*time.Hour + time.Hour}); err != nil {
			t.Fatal(err)
		}
		rules, err := readRules(keys, filepath.Join(t.TempDir(), "cache"))
		if err != nil {
			t.Fatal(err)
		}
		log := make(lines, 9)
		s := &Node{keys: keys, hint: kindTold, log: slog.New(slog.NewTextHandler(log, nil))}
		s.rules.Store(rules)
		go s.keepWarning(t.Context())
		for day := 1; day <= 34; day++ {
			time.Sleep(24 * time.Hour)
			synctest.Wait()
			line := ""
			select {
			case line = <-log:
			default:
			}
			switch {
			case day < 3 && line != "":
				t.Errorf("day %d: %s", day, line)
			case day >= 3 && day <= 32 && !strings.Contains(line, "level=WARN"):
				t.Errorf("day %d: %q", day, line)
			case day > 32 && !(strings.Contains(line, "level=ERROR") && strings.Contains(line, "node.pem ended on")):
				t.Errorf("day %d: %q", day, line)
			}
		}
	})
}

// The daemon keeps the limits of its cache also while no transfer comes.
func TestTend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := cache.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		b := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}`)
		d := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(b), Size: int64(len(b))}
		push := store.Transfer("x/app:1", cache.TransferOptions{})
		_, _, err = push.Offer(t.Context(), []v1.Descriptor{d})
		w, err2 := push.Begin(t.Context(), d, 0)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		_, err = w.Write(b)
		if err := errors.Join(err, w.Commit(t.Context(), d), push.Publish(t.Context()), push.Close()); err != nil {
			t.Fatal(err)
		}
		store.SetLimits(cache.Limits{Max: 1})
		go tend(t.Context(), store, slog.New(slog.DiscardHandler))
		for _, want := range []int{1, 0} {
			list, err := store.List()
			if err != nil || len(list) != want {
				t.Errorf("%+v, %v; want %d", list, err, want)
			}
			time.Sleep(tendEvery + time.Second)
		}
	})
}

// A node that is started with a cache below a permitted directory refuses a directory in the place of either, before and after
// a reload.
func TestDirectoryOverCache(t *testing.T) {
	dir := t.TempDir()
	keys, store := filepath.Join(dir, "keys"), filepath.Join(dir, "data/cache")
	if err := identity.Init(keys, identity.InitOptions{Validity: time.Hour}); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("[[output]]\ndir = %q\noverwrite = true\ndirectories = true\n", dir)
	if err := os.WriteFile(filepath.Join(keys, "policy.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Keys: keys, Cache: store, Listen: "127.0.0.1:0", Hint: kindTold, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range s.listeners {
		defer l.Close()
	}
	again, err := ring.NewNode(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for path, own := range map[string]string{store: store, filepath.Dir(store): store, keys: keys} {
			r, _ := request(t, meta.Transfer{Kind: meta.KindRaw, Output: path, Tree: &meta.Tree{}}, "a")
			sink, err := s.config(s.rules.Load()).Accept(t.Context(), r)
			if sink != nil || err == nil || !strings.Contains(err.Error(), "(output-own "+own+")") {
				t.Errorf("%s: %v, %v", path, sink, err)
			}
		}
		s.reload(again)
	}
}
