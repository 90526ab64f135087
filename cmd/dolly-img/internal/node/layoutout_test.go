package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
)

// foreignLayout makes a layout with images of these names, and many other blobs.
func foreignLayout(t *testing.T, dir string, blobs int, names ...string) {
	t.Helper()
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}}
	for _, name := range names {
		index.Manifests = append(index.Manifests, v1.Descriptor{Digest: digest.FromString(name), Annotations: map[string]string{v1.AnnotationRefName: name}})
	}
	b, err := json.Marshal(index)
	err = errors.Join(err, os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755), os.WriteFile(filepath.Join(dir, "index.json"), b, 0o644),
		os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(layoutMarker), 0o644))
	for i := range blobs {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, "blobs/sha256", digest.FromString(fmt.Sprint(i)).Encoded()), nil, 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A layout that somebody else made is not replaced without overwrite, the refusal says which images would be lost, and
// it does not take longer where the layout has more blobs.
func TestForeignLayout(t *testing.T) {
	n := newTestNode(t)
	out := filepath.Join(n.data, "app")
	const blobs = 2000
	foreignLayout(t, out, blobs, "lab.example/theirs:1", "lab.example/a:1", "one\x1b[31m", "two", "three", "four")
	r, _ := request(t, meta.Transfer{Kind: meta.KindImage, Ref: "lab.example/a:1", Output: out, Format: meta.FormatLayout}, "layer")
	refused := func() error {
		sink, err := n.accept(t.Context(), r)
		if err == nil {
			t.Fatalf("accepted: %v", sink)
		}
		return err
	}
	err := refused()
	for _, want := range []string{out, "exists", "other images are in it: lab.example/theirs:1, ", "two, and more", "output-images"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the refusal lacks %q: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "a:1,") || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("the refusal: %v", err)
	}
	if got := testing.AllocsPerRun(5, func() { refused() }); got > blobs/2 {
		t.Errorf("to refuse takes %.0f allocations where %d blobs are", got, blobs)
	}
	foreignLayout(t, out, 0, "lab.example/a:1")
	if err := refused(); strings.Contains(err.Error(), "other images") || !strings.Contains(err.Error(), "output-exists") {
		t.Errorf("no other image is in it: %v", err)
	}
	if err := os.WriteFile(filepath.Join(out, "index.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	refused()
	if entries, err := os.ReadDir(filepath.Join(out, "blobs/sha256")); err != nil || len(entries) != blobs {
		t.Errorf("%d blobs are left, %v", len(entries), err)
	}
}

// The record that an earlier version made of a layout holds on: its mark is of every file in the order of a walk.
func TestLayoutMark(t *testing.T) {
	n := newTestNode(t)
	out := filepath.Join(n.data, "app")
	r, data := request(t, meta.Transfer{Kind: meta.KindImage, Ref: "lab.example/a:1", Output: out, Format: meta.FormatLayout}, "layer")
	sink, err := n.accept(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	o := sink.(*placing).out.(*layoutOutput)
	play(t, sink, r, data, true)
	var walked strings.Builder
	walked.Write(o.layout.index)
	err = filepath.WalkDir(out, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		fmt.Fprintf(&walked, "\n%q %d", name, st.Ino)
		if !d.IsDir() {
			fmt.Fprintf(&walked, " %d %d %d", st.Size, st.Mtim.Nano(), st.Ctim.Nano())
		}
		return nil
	})
	if mark, merr := o.mark(); err != nil || merr != nil || mark != digest.FromString(walked.String()) {
		t.Errorf("the mark is another one: %v, %v", err, merr)
	}
	if err := os.WriteFile(filepath.Join(out, "blobs", "more"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := o.mark(); err == nil {
		t.Error("a file that was added is not noticed")
	}
}
