package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/sif"
)

// testNode is a node without a ring: its acceptor, and the directories it may write to.
type testNode struct {
	*acceptor
	data string // overwrite = false
	over string // overwrite = true
}

func newTestNode(t *testing.T) *testNode {
	t.Helper()
	dir := t.TempDir()
	c, err := cache.Open(filepath.Join(dir, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	n := &testNode{data: filepath.Join(dir, "data"), over: filepath.Join(dir, "over")}
	for _, d := range []string{n.data, n.over} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n.acceptor = &acceptor{hint: kindTold, log: slog.New(slog.DiscardHandler), cache: c, policy: &identity.Policy{Outputs: []identity.Output{
		{Dir: n.data}, {Dir: n.over, Overwrite: true},
	}}}
	return n
}

// kindTold is what a hint is given for.
func kindTold(err error) string {
	kind, about := errkind.Of(err)
	return strings.TrimSpace(string(kind) + " " + strings.Join(about, " "))
}

// request is for an image of one layer, data.
func request(t *testing.T, m meta.Transfer, data string) (ring.Request, map[digest.Digest]string) {
	t.Helper()
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	r := ring.Request{Meta: b}
	layer := digest.FromString(data)
	if m.Kind == meta.KindRaw {
		r.Blobs = []v1.Descriptor{{Size: int64(len(data))}}
		return r, map[digest.Digest]string{"": data}
	}
	config, manifest, err := sif.Artifact(layer, int64(len(data)), "a.sif")
	if err != nil {
		t.Fatal(err)
	}
	blobs := map[digest.Digest]string{layer: data}
	r.Blobs = []v1.Descriptor{{MediaType: sif.LayerMediaType, Digest: layer, Size: int64(len(data))}}
	for kind, b := range map[string][]byte{sif.ConfigMediaType: config} {
		blobs[digest.FromBytes(b)] = string(b)
		r.Blobs = append(r.Blobs, v1.Descriptor{MediaType: kind, Digest: digest.FromBytes(b), Size: int64(len(b))})
	}
	blobs[digest.FromBytes(manifest)] = string(manifest)
	r.Blobs = append(r.Blobs, v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(manifest), Size: int64(len(manifest))})
	return r, blobs
}

// play does what the ring does with a sink, up to Publish if commit.
func play(t *testing.T, sink ring.Sink, r ring.Request, data map[digest.Digest]string, commit bool) (inPlace bool) {
	t.Helper()
	ctx := context.Background()
	if c, ok := sink.(io.Closer); ok {
		defer func() {
			if err := c.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}()
	}
	held, _, err := sink.Offer(ctx, r.Blobs)
	if err != nil {
		t.Fatal(err)
	}
	final := append([]v1.Descriptor{}, r.Blobs...)
	for i, d := range r.Blobs {
		if d.Digest == "" {
			final[i].Digest = digest.FromString(data[""])
		}
		if held[i] == d.Size {
			continue
		}
		w, err := sink.Begin(ctx, d, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, data[d.Digest]); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(ctx, final[i]); err != nil {
			t.Fatal(err)
		}
	}
	if p, ok := sink.(ring.Preparer); ok {
		if inPlace, err = p.Prepare(ctx, final); err != nil {
			t.Fatal(err)
		}
	}
	if commit && !inPlace {
		if err := sink.Publish(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return inPlace
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

// TestPlacing: an image goes to the cache and to a file; the file appears with Publish
// only, is in place at the next transfer, and is made again when it is gone or touched.
func TestPlacing(t *testing.T) {
	n := newTestNode(t)
	out := filepath.Join(n.over, "a.sif")
	mtime := time.Unix(1_700_000_000, 0)
	r, data := request(t, meta.Transfer{Kind: meta.KindImage, Ref: "localhost/a:latest", Output: out, Mode: 0o640, Mtime: mtime}, "some image")
	transfer := func(commit bool) bool {
		t.Helper()
		sink, err := n.accept(context.Background(), r)
		if err != nil {
			t.Fatal(err)
		}
		return play(t, sink, r, data, commit)
	}
	if err := os.WriteFile(out, []byte("the old one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if transfer(false) || mustRead(t, out) != "the old one" {
		t.Error("changed without Publish")
	}
	if transfer(true) || mustRead(t, out) != "some image" {
		t.Error("not placed")
	}
	info, _ := os.Stat(out)
	if info.Mode().Perm() != 0o640 || !info.ModTime().Equal(mtime) {
		t.Errorf("mode %v, time %v", info.Mode(), info.ModTime())
	}
	if !transfer(true) {
		t.Error("not in place at the second transfer")
	}
	os.Remove(out)
	if transfer(true) || mustRead(t, out) != "some image" {
		t.Error("not placed again after it was removed")
	}
	os.Chmod(out, 0o600)
	if transfer(true) {
		t.Error("in place with another mode than asked")
	}
	os.WriteFile(out, []byte("SOME IMAGE"), 0o640)
	if transfer(true) || mustRead(t, out) != "some image" {
		t.Error("not placed again after it was changed")
	}
	sink, err := n.accept(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(out) // after it was found in place
	if play(t, sink, r, data, true) || mustRead(t, out) != "some image" {
		t.Error("not placed after it was removed meanwhile")
	}
	if left, _ := os.ReadDir(n.over); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAcceptRaw(t *testing.T) {
	n := newTestNode(t)
	out := filepath.Join(n.data, "f")
	r, data := request(t, meta.Transfer{Kind: meta.KindRaw, Output: out}, "bytes")
	sink, err := n.accept(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	play(t, sink, r, data, true)
	if mustRead(t, out) != "bytes" {
		t.Error("not written")
	}
	r, data = request(t, meta.Transfer{Kind: meta.KindRaw, Output: "-"}, "to a stream")
	var stdout bytes.Buffer
	n.stdout = &stdout
	if sink, err = n.accept(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	play(t, sink, r, data, true)
	if stdout.String() != "to a stream" {
		t.Errorf("standard output has %q", stdout.String())
	}
	r, data = request(t, meta.Transfer{Kind: meta.KindImage, Discard: true}, "nothing")
	if sink, err = n.accept(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	play(t, sink, r, data, true)
	if list, err := n.cache.List(); err != nil || len(list) != 0 {
		t.Errorf("discarded, and the cache has %v, %v", list, err)
	}
}

// TestAcceptBusy: who writes a target is waited for, in the ring's words.
func TestAcceptBusy(t *testing.T) {
	n := newTestNode(t)
	r, _ := request(t, meta.Transfer{Kind: meta.KindRaw, Output: filepath.Join(n.data, "f")}, "bytes")
	first, err := n.accept(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer first.(io.Closer).Close()
	if _, err := first.Begin(context.Background(), r.Blobs[0], 0); err != nil {
		t.Fatal(err)
	}
	if _, err := n.accept(context.Background(), r); !errors.Is(err, ring.ErrBusy) {
		t.Errorf("got %v, want busy", err)
	}
}

// TestRefusals: each with its rule, and nothing is made.
func TestRefusals(t *testing.T) {
	n := newTestNode(t)
	if err := os.WriteFile(filepath.Join(n.data, "there"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", filepath.Join(n.over, "link")); err != nil {
		t.Fatal(err)
	}
	warmer := func(r *ring.Request) { r.Role = ring.RoleWarmer }
	encoded := func(s string) func(*ring.Request) { return func(r *ring.Request) { r.Meta = []byte(s) } }
	for _, c := range []struct {
		name string
		meta meta.Transfer
		edit func(*ring.Request)
		want string
	}{
		{"outside", meta.Transfer{Kind: meta.KindRaw, Output: "/scratch/a"}, nil, `not permitted by the policy of this node (output-denied /scratch policy.toml; then send SIGHUP to the daemon there)`},
		{"of the system", meta.Transfer{Kind: meta.KindRaw, Output: "/etc/passwd"}, nil, "not permitted by the policy of this node (output-elsewhere /etc policy.toml " + n.data},
		{"the directory itself", meta.Transfer{Kind: meta.KindRaw, Output: n.data}, nil, "not permitted"},
		{"exists", meta.Transfer{Kind: meta.KindRaw, Output: n.data + "/there"}, nil, "output-exists"},
		{"image exists", meta.Transfer{Kind: meta.KindImage, Ref: "a:b", Output: n.data + "/there"}, nil, "output-exists"},
		{"link", meta.Transfer{Kind: meta.KindRaw, Output: n.over + "/link/x"}, nil, "is a symbolic link"},
		{"no directory", meta.Transfer{Kind: meta.KindRaw, Output: n.data + "/no/x"}, nil, "output-parent"},
		{"standard output", meta.Transfer{Kind: meta.KindRaw, Output: "-"}, nil, "output-stdout"},
		{"owner", meta.Transfer{Kind: meta.KindRaw, Output: n.data + "/x", Owner: "no-such-user"}, nil, "owner no-such-user"},
		{"warmer, to a file", meta.Transfer{Kind: meta.KindImage, Ref: "a:b", Output: n.over + "/x"}, warmer, "role-warmer"},
		{"warmer, to a device", meta.Transfer{Kind: meta.KindRaw, Output: "device:a", Device: &meta.Device{}}, warmer, "role-warmer"},
		{"warmer, that keeps nothing", meta.Transfer{Kind: meta.KindImage, Discard: true}, warmer, "role-warmer"},
		{"warmer, a file that is kept nowhere", meta.Transfer{Kind: meta.KindRaw, Discard: true}, warmer, "role-warmer"},
		{"warmer, that pins", meta.Transfer{Kind: meta.KindImage, Ref: "a:b", Pin: true}, warmer, "role-warmer-pin"},
		{"no SIF", meta.Transfer{Kind: meta.KindImage, Ref: "a:b", Output: n.data + "/x"}, func(r *ring.Request) { r.Blobs = r.Blobs[1:] }, "no SIF"},
		{"unknown key", meta.Transfer{Kind: meta.KindRaw, Discard: true}, encoded(`{"version":1,"kind":"raw","discard":true,"rm":"/"}`), `unknown field "rm"`},
		{"version", meta.Transfer{Kind: meta.KindRaw, Discard: true}, encoded(`{"version":6,"what":true}`), "version 6, this node knows 5"},
		{"kind", meta.Transfer{Kind: meta.KindRaw, Discard: true}, encoded(`{"version":1,"kind":"disk"}`), `unknown kind of transfer "disk"`},
		{"no JSON", meta.Transfer{Kind: meta.KindRaw, Discard: true}, encoded(`x`), "description of the transfer"},
		{"dots", meta.Transfer{Kind: meta.KindRaw, Discard: true}, encoded(`{"version":1,"kind":"raw","output":"` + n.data + `/../x"}`), "in its shortest form"},
		{"setuid", meta.Transfer{Kind: meta.KindRaw, Discard: true}, encoded(`{"version":1,"kind":"raw","output":"` + n.data + `/x","mode":2541}`), "permission bits"},
		{"large", meta.Transfer{Kind: meta.KindRaw, Discard: true}, encoded(`{"version":1,"kind":"raw","output":"/` + strings.Repeat("x", 16<<10) + `"}`), "at most"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _ := request(t, c.meta, "some image")
			if c.edit != nil {
				c.edit(&r)
			}
			sink, err := n.accept(context.Background(), r)
			if err == nil || !strings.Contains(err.Error(), c.want) || sink != nil || strings.Contains(c.want, "not permitted") && n.permit(r) == nil {
				t.Errorf("got %v, %v, want %q", sink, err, c.want)
			}
		})
	}
	if left, _ := os.ReadDir(n.data); len(left) != 1 {
		t.Errorf("made: %v", left)
	}
	if list, err := n.cache.List(); err != nil || len(list) != 0 {
		t.Errorf("the cache has %v, %v", list, err)
	}
}

// What is left to a warmer is the cache. Its refusals are of its role, and not of the policy.
func TestWarmer(t *testing.T) {
	n := newTestNode(t)
	r, data := request(t, meta.Transfer{Kind: meta.KindImage, Ref: "localhost/a:latest"}, "layer")
	r.Role = ring.RoleWarmer
	sink, err := n.accept(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	play(t, sink, r, data, true)
	if _, err := n.cache.Resolve("localhost/a:latest"); err != nil {
		t.Error(err)
	}
	r, _ = request(t, meta.Transfer{Kind: meta.KindImage, Ref: "a:b", Output: n.over + "/x"}, "layer")
	r.Role = ring.RoleWarmer
	_, err = n.accept(t.Context(), r)
	if refused := new(ring.RefusedError); !errors.As(err, &refused) || refused.Why != ring.RefusesRole || !errors.As(n.permit(r), &refused) {
		t.Error(err)
	}
}

// TestPlacingLayout: any file of the directory that is touched has it made again.
func TestPlacingLayout(t *testing.T) {
	n := newTestNode(t)
	out := filepath.Join(n.over, "app")
	r, data := request(t, meta.Transfer{Kind: meta.KindImage, Ref: "localhost/a:latest", Output: out, Format: meta.FormatLayout}, "layer")
	run := func(want bool) {
		t.Helper()
		sink, err := n.accept(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if inPlace := play(t, sink, r, data, true); inPlace != want {
			t.Errorf("in place: %v", inPlace)
		}
		if b := mustRead(t, filepath.Join(out, "oci-layout")); b != layoutMarker {
			t.Errorf("oci-layout is %q", b)
		}
		for d, b := range data {
			if got := mustRead(t, filepath.Join(out, "blobs/sha256", d.Encoded())); got != b {
				t.Errorf("blob %s is %q", d, got)
			}
		}
	}
	run(false)
	run(true)
	blob := filepath.Join(out, "blobs/sha256", digest.FromString("layer").Encoded())
	for _, touch := range []func() error{
		func() error { return os.Remove(blob) },
		func() error { return os.WriteFile(blob, []byte("LAYER"), 0o644) },
		func() error { return os.WriteFile(blob+"0", nil, 0o644) },
		func() error { return os.RemoveAll(out) },
		func() error { return os.Chmod(filepath.Join(out, "index.json"), 0o600) },
	} {
		if err := touch(); err != nil {
			t.Fatal(err)
		}
		run(false)
		run(true)
	}
	if left, err := os.ReadDir(n.over); err != nil || len(left) != 1 {
		t.Errorf("beside it: %v, %v", left, err)
	}
}

// A layer may be larger than the oldest form of a tar can say.
func TestLargeLayerInTar(t *testing.T) {
	size := int64(9 << 30)
	d := v1.Descriptor{Digest: digest.FromString("large"), Size: size}
	l := &layout{blobs: []v1.Descriptor{d}}
	hole := filepath.Join(t.TempDir(), "hole")
	if err := os.WriteFile(hole, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// The file is empty: the header is what is tried, and then that too little came.
	err := l.writeTar(t.Context(), io.Discard, func(v1.Descriptor) (*os.File, error) { return os.Open(hole) })
	if err == nil || !strings.Contains(err.Error(), "missed writing") {
		t.Error(err)
	}
}

// What the system lacks is known by its error to whoever gets the refusal.
func TestRefusalKeepsLack(t *testing.T) {
	a := &acceptor{hint: func(error) string { return "" }}
	for _, lack := range []syscall.Errno{syscall.ENOSPC, syscall.EMFILE, syscall.ENFILE} {
		if err := a.refusal(fmt.Errorf("open /x: %w", lack)); !errors.Is(err, lack) || err.Error() != "open /x: "+lack.Error() {
			t.Errorf("%v: %v", lack, err)
		}
	}
}
