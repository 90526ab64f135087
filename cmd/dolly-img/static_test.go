package main

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/cache/warm"
)

// TestStatic: what README says of building gives a program that needs nothing of the machine it runs
// on, no dynamic linker and no C library of any version, and that has the version it was given. (The flag
// -trimpath makes no difference to that, and would compile everything once more.)
func TestStatic(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dolly-img")
	cmd := exec.Command("go", "build", "-ldflags", "-s -w -X main.release=v9.8.7", "-o", file, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("it has a segment %v", p.Type)
		}
	}
	if f.Section(".dynamic") != nil || f.Section(".symtab") != nil {
		t.Error("it has a dynamic section, or symbols")
	}
	out, err := exec.Command(file, "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "dolly-img 9.8.7\ncommit ") {
		t.Errorf("%v: %s", err, out)
	}
}

// unitLines returns what a unit file says of programs that it starts, by key.
func unitLines(t *testing.T, name string) map[string][]string {
	t.Helper()
	b, err := os.ReadFile("packaging/" + name)
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && strings.HasPrefix(key, "Exec") {
			lines[key] = append(lines[key], value)
		}
	}
	return lines
}

// hasFlags fails if a line is no command of this name with flags that there are.
func hasFlags(t *testing.T, line, name string) {
	t.Helper()
	cmd, args, err := newRoot().Find(strings.Fields(line)[1:])
	if err == nil {
		err = cmd.ParseFlags(args)
	}
	if err != nil || cmd.Name() != name {
		t.Errorf("%s: %v", line, err)
	}
}

// TestUnit: a reload by the unit file checks what its start reads, with flags that there are.
func TestUnit(t *testing.T) {
	lines := unitLines(t, "dolly-img.service")
	start, reload := lines["ExecStart"], lines["ExecReload"]
	if len(start) != 1 || len(reload) != 2 || reload[1] != "/bin/kill -HUP $MAINPID" {
		t.Fatalf("ExecStart %q, ExecReload %q", start, reload)
	}
	if want := strings.Replace(strings.TrimSuffix(start[0], " --grace 30s"), " daemon ", " daemon --check-config ", 1); reload[0] != want {
		t.Errorf("ExecReload checks with %q, want %q", reload[0], want)
	}
	hasFlags(t, start[0], "daemon")
	hasFlags(t, reload[0], "daemon")
}

// TestWarmPackaged: systemd understands the unit of the controller, which starts it with flags that there are; and the list beside it is a list, as it
// is and with every key in it.
func TestWarmPackaged(t *testing.T) {
	lines := unitLines(t, "dolly-img-warm.service")
	if len(lines["ExecStart"]) != 1 || !slices.Equal(lines["ExecReload"], []string{"/bin/kill -HUP $MAINPID"}) {
		t.Fatal(lines)
	}
	hasFlags(t, lines["ExecStart"][0], "warm")
	if analyze, err := exec.LookPath("systemd-analyze"); err == nil { // elsewhere it can only be read
		b, err := os.ReadFile("packaging/dolly-img-warm.service")
		unit := filepath.Join(t.TempDir(), "dolly-img-warm.service")
		if err == nil {
			err = os.WriteFile(unit, bytes.ReplaceAll(b, []byte("/usr/local/bin/dolly-img"), []byte("/bin/true")), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(analyze, "verify", "--man=no", unit).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%v: %s", err, out)
		}
	}
	text, err := os.ReadFile("packaging/warm.toml")
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`(?m)^#([a-z[])`).ReplaceAll(text, []byte("$1"))
	for images, text := range map[int][]byte{1: text, 3: all} {
		if list, err := warm.Parse(text); err != nil || len(list.Images) != images {
			t.Errorf("%+v, %v\n%s", list, err, text)
		}
	}
}
