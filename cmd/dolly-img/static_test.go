package main

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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

// TestUnit: a reload by the unit file checks what its start reads, with flags that there are.
func TestUnit(t *testing.T) {
	b, err := os.ReadFile("packaging/dolly-img.service")
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && strings.HasPrefix(key, "Exec") {
			lines[key] = append(lines[key], value)
		}
	}
	start, reload := lines["ExecStart"], lines["ExecReload"]
	if len(start) != 1 || len(reload) != 2 || reload[1] != "/bin/kill -HUP $MAINPID" {
		t.Fatalf("ExecStart %q, ExecReload %q", start, reload)
	}
	if want := strings.Replace(strings.TrimSuffix(start[0], " --grace 30s"), " daemon ", " daemon --check-config ", 1); reload[0] != want {
		t.Errorf("ExecReload checks with %q, want %q", reload[0], want)
	}
	for _, line := range []string{start[0], reload[0]} {
		root := newRoot()
		cmd, args, err := root.Find(strings.Fields(line)[1:])
		if err == nil {
			err = cmd.ParseFlags(args)
		}
		if err != nil || cmd.Name() != "daemon" {
			t.Errorf("%s: %v", line, err)
		}
	}
}
