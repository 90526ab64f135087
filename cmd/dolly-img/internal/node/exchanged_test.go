package node

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
)

// exchanging is an output whose owner exchanges it as soon as it has its name.
type exchanging struct {
	output
	exchange func() error
}

func (e exchanging) Publish(ctx context.Context) error {
	if err := e.output.Publish(ctx); err != nil {
		return err
	}
	return e.exchange()
}

// Who may write to the directory of an output can exchange it at any time. If he does so between its last rename and
// its record, the next push must not call other bytes held.
func TestExchangedBeforeRecord(t *testing.T) {
	for _, format := range []string{"", meta.FormatArchive, meta.FormatLayout} {
		t.Run("format "+format, func(t *testing.T) {
			n := newTestNode(t)
			out := filepath.Join(n.over, "a")
			file := out
			if format == meta.FormatLayout {
				file = filepath.Join(out, "oci-layout")
			}
			r, data := request(t, meta.Transfer{Kind: meta.KindImage, Ref: "localhost/a:latest", Output: out, Format: format}, "layer")
			sink, err := n.accept(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			p := sink.(*placing)
			p.out = exchanging{p.out, func() error {
				if err := os.Remove(file); err != nil {
					return err
				}
				return os.WriteFile(file, []byte("something else"), 0o644)
			}}
			play(t, sink, r, data, true)
			if sink, err = n.accept(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if play(t, sink, r, data, true) || mustRead(t, file) == "something else" {
				t.Error("what somebody put there is taken for the output")
			}
		})
	}
}

// An output whose directory became a link that leads out of the permitted one is not held there.
func TestHeldBehindLink(t *testing.T) {
	for _, m := range []meta.Transfer{
		{Kind: meta.KindImage, NoKeep: true},
		{Kind: meta.KindImage, Ref: "localhost/a:latest"},
		{Kind: meta.KindImage, Ref: "localhost/a:latest", Format: meta.FormatLayout},
	} {
		t.Run("format "+m.Format, func(t *testing.T) {
			n := newTestNode(t)
			m.Output, m.Mkdir = filepath.Join(n.over, "sub/a"), true
			r, data := request(t, m, "layer")
			sink, err := n.accept(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			play(t, sink, r, data, true)
			if sink, err = n.accept(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if !play(t, sink, r, data, true) {
				t.Error("not held where it was put")
			}
			sub, elsewhere := filepath.Join(n.over, "sub"), filepath.Join(t.TempDir(), "sub")
			if err := os.Rename(sub, elsewhere); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(elsewhere, sub); err != nil {
				t.Fatal(err)
			}
			if sink, err := n.accept(t.Context(), r); err == nil {
				sink.(interface{ Close() error }).Close()
				t.Error("accepted, through a link")
			}
		})
	}
}
