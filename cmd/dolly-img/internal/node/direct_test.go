package node

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
)

// What is not kept leaves no blob in the cache; the output is found in place the next time,
// can be read from there, and is made again when it was touched.
func TestDirect(t *testing.T) {
	n := newTestNode(t)
	out := filepath.Join(n.over, "a.sif")
	r, data := request(t, meta.Transfer{Kind: meta.KindImage, Output: out, NoKeep: true, Mode: 0o750}, "some image")
	held := func() int64 {
		t.Helper()
		sink, err := n.accept(context.Background(), r)
		if err != nil {
			t.Fatal(err)
		}
		defer sink.(*direct).Close()
		held, free, err := sink.Offer(context.Background(), r.Blobs)
		if err != nil || (held[0] == 0) != (free > 0) {
			t.Fatalf("holds %v, %d free, %v", held, free, err)
		}
		return held[0]
	}
	transfer := func() (inPlace bool) {
		t.Helper()
		sink, err := n.accept(context.Background(), r)
		if err != nil {
			t.Fatal(err)
		}
		return play(t, sink, r, data, true)
	}
	if held() != 0 || transfer() || mustRead(t, out) != "some image" {
		t.Error("not put there")
	}
	if info, err := os.Stat(out); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("%v, %v", info, err)
	}
	if path, _ := n.cache.BlobPath(r.Blobs[0].Digest); mustRead(t, path) != "" {
		t.Error("the cache has it, too")
	}
	if held() != int64(len("some image")) || !transfer() {
		t.Error("not found in place")
	}
	if err := os.WriteFile(out, []byte("SOME IMAGE"), 0o750); err != nil {
		t.Fatal(err)
	}
	if held() != 0 || transfer() || mustRead(t, out) != "some image" {
		t.Error("not put there again")
	}
	sink, err := n.accept(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	d := sink.(*direct)
	defer d.Close()
	if _, _, err := d.Offer(context.Background(), r.Blobs); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(out, 0o700); err != nil { // meanwhile
		t.Fatal(err)
	}
	if _, err := d.Open(context.Background(), r.Blobs[0], 0); err == nil {
		t.Error("what was touched is given to others")
	}
	if _, err := d.Prepare(context.Background(), r.Blobs); err == nil {
		t.Error("what was touched is in place")
	}
}
