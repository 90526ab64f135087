package durable_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/ring/ringtest/crashfs"
)

func write(t *testing.T, fsys durable.FS, name, text string) durable.File {
	t.Helper()
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteAt([]byte(text), 0); err != nil {
		t.Fatal(err)
	}
	return f
}

func read(fsys durable.FS, name string) (string, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	return string(b), err
}

func mustRead(t *testing.T, fsys durable.FS, name, want string) {
	t.Helper()
	if got, err := read(fsys, name); err != nil || got != want {
		t.Errorf("%s is %q, %v, want %q", name, got, err, want)
	}
}

// Both directories of the operating system do what the one does that takes the power away, so that what survives
// there survives here.
func TestFS(t *testing.T) {
	root, err := durable.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for name, fsys := range map[string]durable.FS{"Dir": durable.Dir(t.TempDir()), "OpenRoot": root, "crashfs": crashfs.New()} {
		t.Run(name, func(t *testing.T) { testFS(t, fsys) })
	}
}

func testFS(t *testing.T, fsys durable.FS) {
	if err := fsys.Mkdir("d", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := fsys.Mkdir("d", 0o755); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a directory is made twice: %v", err)
	}
	a := write(t, fsys, "d/a", "of a")
	write(t, fsys, "b", "of b")
	for what, err := range map[string]error{"RenameNew": fsys.RenameNew("d/a", "b"), "Link": fsys.Link("d/a", "b")} {
		if !errors.Is(err, fs.ErrExist) || durable.NotSupported(err) {
			t.Errorf("%s over a file: %v", what, err)
		}
	}
	mustRead(t, fsys, "b", "of b")
	if err := fsys.RenameNew("d/a", "c"); err != nil {
		t.Fatal(err)
	}
	mustRead(t, fsys, "c", "of a")
	if is, err := durable.IsAt(fsys, a, "c"); !is || err != nil {
		t.Errorf("the file is not where it was moved to: %v", err)
	}
	if is, err := durable.IsAt(fsys, a, "b"); is || err != nil {
		t.Errorf("the file is where another one is: %v", err)
	}
	if is, err := durable.IsAt(fsys, a, "d/a"); is || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is where nothing is: %v", err)
	}
	if err := fsys.Exchange("b", "c"); err != nil {
		t.Fatal(err)
	}
	mustRead(t, fsys, "b", "of a")
	mustRead(t, fsys, "c", "of b")
	if err := fsys.Exchange("b", "nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("exchanged with nothing: %v", err)
	}
	if err := fsys.Link("b", "d/second"); err != nil {
		t.Fatal(err)
	}
	info, err := fsys.Lstat("d/second")
	if err != nil || info.Sys().(*syscall.Stat_t).Nlink != 2 {
		t.Errorf("a second name: %v, %v", info, err)
	}
	if err := fsys.Remove("b"); err != nil {
		t.Fatal(err)
	}
	mustRead(t, fsys, "d/second", "of a")
	if err := fsys.Rename("d/second", "c"); err != nil {
		t.Fatal(err)
	}
	mustRead(t, fsys, "c", "of a")
	testFSSub(t, fsys)
	if err := errors.Join(fsys.SyncDir("d"), fsys.SyncDir(".")); err != nil {
		t.Error(err)
	}
	if err := fsys.RemoveAll("d"); err != nil {
		t.Fatal(err)
	}
	if names, err := fsys.Names("."); err != nil || !slices.Equal(names, []string{"c"}) {
		t.Errorf("what is left is %v, %v", names, err)
	}
}

// Neither directory follows a link that somebody put under a name, or leads out through one.
func TestLinks(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := errors.Join(os.WriteFile(secret, []byte("secret"), 0o600), os.Symlink(secret, filepath.Join(dir, "link")),
		os.Symlink(filepath.Dir(secret), filepath.Join(dir, "out"))); err != nil {
		t.Fatal(err)
	}
	if got, err := read(durable.Dir(dir), "link"); err == nil {
		t.Errorf("Dir: read %q through a link", got)
	}
	root, err := durable.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, name := range []string{"link", "out/secret", "../" + filepath.Base(filepath.Dir(secret)) + "/secret"} {
		if got, err := read(root, name); err == nil {
			t.Errorf("OpenRoot: read %q as %s", got, name)
		}
	}
	write(t, root, "x", "")
	if err := root.RenameNew("x", "out/x"); err == nil {
		t.Error("OpenRoot: a file left through a link")
	}
}

func testFSSub(t *testing.T, fsys durable.FS) {
	sub, err := fsys.Sub("d")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	x, at := write(t, sub, "x", ""), time.Unix(1<<30, 5000)
	if err := x.Chtimes(at, at); err != nil {
		t.Fatal(err)
	}
	if info, err := fsys.Lstat("d/x"); err != nil || !info.ModTime().Equal(at) {
		t.Errorf("times of a file in a directory: %v, %v", info, err)
	}
	for _, name := range []string{"c", "nothing"} {
		if _, err := fsys.Sub(name); err == nil {
			t.Errorf("%s is no directory, and was opened as one", name)
		}
	}
}

// A directory that is held stays the same one after its name leads elsewhere, and no link is taken for one.
func TestSub(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "a"), 0o755), os.Mkdir(filepath.Join(dir, "b"), 0o755),
		os.Symlink("b", filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	root, err := durable.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	sub, err := root.Sub("a")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if err := root.Exchange("a", "link"); err != nil {
		t.Fatal(err)
	}
	write(t, sub, "x", "text")
	mustRead(t, root, "link/x", "text")
	if names, err := root.Names("b"); err != nil || len(names) > 0 {
		t.Errorf("in the directory that the link leads to: %v, %v", names, err)
	}
	for name, fsys := range map[string]durable.FS{"OpenRoot": root, "Dir": durable.Dir(dir)} {
		if _, err := fsys.Sub("a"); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("%s: a link was opened as a directory: %v", name, err)
		}
	}
}

// The path to a root leads through links that nobody else can have made, and through no others.
func TestOpenRootTrusts(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"real", "real/sub", "safe", "open"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"safe/relative": "../real", "safe/absolute": filepath.Join(dir, "real"), "safe/twice": "absolute/../real",
		"safe/loop": "loop", "open/link": "../real", "safe/alices": "../real", "safe/through": "../open/link"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	untrusted := []string{"open/link", "open/link/sub", "safe/through/sub"}
	if os.Geteuid() == 0 {
		if err := os.Lchown(filepath.Join(dir, "safe/alices"), 12345, -1); err != nil {
			t.Fatal(err)
		}
		untrusted = append(untrusted, "safe/alices", "safe/alices/sub")
	}
	if err := os.Chmod(filepath.Join(dir, "open"), 0o1777); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"real/sub", "safe/relative/sub", "safe/absolute/sub", "safe/twice/sub", "open"} {
		root, err := durable.OpenRoot(filepath.Join(dir, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		root.Close()
	}
	for _, name := range untrusted {
		if _, err := durable.OpenRoot(filepath.Join(dir, name)); !errors.Is(err, durable.ErrUntrustedLink) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, want := range map[string]error{"safe/loop": syscall.ELOOP, "no/sub": fs.ErrNotExist, "safe/relative/no": fs.ErrNotExist} {
		if _, err := durable.OpenRoot(filepath.Join(dir, name)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

func TestLock(t *testing.T) {
	fsys := durable.Dir(t.TempDir())
	if err := fsys.Mkdir("temps", 0o700); err != nil {
		t.Fatal(err)
	}
	f, name, err := durable.CreateLocked(fsys, "temps", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	again, err := fsys.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := durable.TryLock(again); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("locked twice: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := durable.WaitLock(ctx, again); !errors.Is(err, context.Canceled) {
		t.Errorf("did not wait: %v", err)
	}
	if err := durable.RemoveOrphan(fsys, name); err != nil {
		t.Error(err)
	}
	if _, err := fsys.Lstat(name); err != nil {
		t.Errorf("a file whose maker lives was removed: %v", err)
	}
	waited := make(chan error)
	go func() { waited <- durable.WaitLock(t.Context(), again) }()
	f.Close()
	if err := <-waited; err != nil {
		t.Error(err)
	}
	again.Close()
	for range 2 { // the second time there is nothing to do
		if err := durable.RemoveOrphan(fsys, name); err != nil {
			t.Error(err)
		}
	}
	if names, err := fsys.Names("temps"); err != nil || len(names) > 0 {
		t.Errorf("what was left behind: %v, %v", names, err)
	}
}

// A power loss before any of its system calls leaves the old file or the new one, and so does any call that fails.
func TestReplaceSurvives(t *testing.T) {
	old, fresh := "the old file", "the new file"
	finish := func(f durable.File) error { return f.Chmod(0o644) }
	sweep := func(files, dirs bool) error {
		return crashfs.Sweep(func() (*crashfs.FS, error) {
			f := crashfs.New()
			err := errors.Join(f.Mkdir("temps", 0o755), durable.Replace(f, "file", "temps", []byte(old), finish))
			f.IgnoreSync(files, dirs)
			return f, err
		}, func(f *crashfs.FS) error {
			return durable.Replace(f, "file", "temps", []byte(fresh), finish)
		}, func(f *crashfs.FS, worked error) error {
			got, err := read(f, "file")
			if err != nil || got != fresh && (got != old || worked == nil) {
				return fmt.Errorf("the file is %q: %w", got, err)
			}
			return nil
		})
	}
	if err := sweep(false, false); err != nil {
		t.Error(err)
	}
	if sweep(true, false) == nil {
		t.Error("no fsync of the file: the sweep does not notice")
	}
	if sweep(false, true) == nil {
		t.Error("no fsync of the directory: the sweep does not notice")
	}
}

func TestPart(t *testing.T) {
	ctx, fsys := t.Context(), durable.Dir(t.TempDir())
	p := durable.NewPart(write(t, fsys, "part", ""), 0)
	if err := p.Reserve(32 << 20); err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // more than is written back at once
	closed := 0
	r, err := p.Open(ctx, 0, func() error { closed++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("of an empty part %d bytes were read, %v", n, err)
	}
	for _, piece := range [][]byte{want[:10<<20], want[10<<20:]} {
		if _, err := p.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := p.File.Stat(); err != nil || info.Size() != int64(len(want)) || p.Written() != info.Size() {
		t.Errorf("%d bytes are written, the file is %v, %v", p.Written(), info, err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes were read, %v", len(got), err)
	}
	r.Close()
	if r.Close(); closed != 1 {
		t.Errorf("told %d times that the reader was closed", closed)
	}
	if err := p.Cut(int64(len(want)) + 1); err == nil {
		t.Error("more was kept than there is")
	}
	if err := p.Cut(5); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Open(ctx, 6, nil); err == nil {
		t.Error("opened behind its end")
	}
	if _, err := p.Write([]byte("X")); err != nil {
		t.Fatal(err)
	}
	mustRead(t, fsys, "part", "01234X")
	short, err := p.Open(ctx, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.File.Truncate(2); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(short); err != io.ErrUnexpectedEOF {
		t.Errorf("a file that somebody cut short was read: %v", err)
	}
}

// Flush tells of each 8 MiB that the device has taken, but for the last: Sync tells of that. It ends with its context.
func TestFlush(t *testing.T) {
	p := durable.NewPart(write(t, durable.Dir(t.TempDir()), "part", ""), 0)
	defer p.File.Close()
	const step = 8 << 20
	for range 5 {
		if _, err := p.Write(make([]byte, step/2)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var steps []int64
	if err := p.Flush(ctx, func(n int64) { steps = append(steps, n) }); err != nil || !slices.Equal(steps, []int64{step, step}) {
		t.Errorf("20 MiB: %v, %v", steps, err)
	}
	if err := p.Flush(ctx, func(int64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}
