package warm

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cache/durable"
)

func someState() *State {
	at := time.Date(2026, 11, 29, 20, 0, 0, 0, time.UTC)
	return &State{Version: 1, Images: []ImageSaved{{Ref: "docker://registry.example/ml/torch:25.10", List: digest.FromString("list"), Found: at, Next: at.Add(time.Minute),
		Variants: []VariantSaved{{"linux/amd64", "registry.example/ml/torch:25.10", digest.FromString("new"), 12e9, []digest.Digest{digest.FromString("old")}, at},
			{"linux/arm64", "registry.example/ml/torch:25.10", digest.FromString("arm"), 0, nil, time.Time{}}}}}}
}

// What is saved is read back; one that is damaged is an error, and none is no error. Saving leaves nothing else behind.
func TestState(t *testing.T) {
	dir := t.TempDir()
	fsys := durable.Dir(dir)
	if s, err := loadState(fsys); s != nil || err != nil {
		t.Fatal(s, err)
	}
	want := someState()
	for range 2 {
		if err := want.save(fsys); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := loadState(fsys); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	if left, err := os.ReadDir(filepath.Join(dir, temps)); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	good, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, damage := range [][2]string{{`"version": 1`, `"version": 2`}, {`"ref"`, `"Ref2"`}, {`sha256:`, `sha255:`}, {`"bytes": 12`, `"bytes": -12`},
		{string(good), ""}, {string(good), string(good) + "{}"}, {string(good), string(good[:100])}} {
		bad := strings.Replace(string(good), damage[0], damage[1], 1)
		if bad == string(good) {
			t.Fatalf("%q is not in %s", damage[0], good)
		}
		if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := loadState(fsys); err == nil {
			t.Errorf("%q for %q: %+v", damage[1], damage[0], s)
		}
	}
}

// What is read is written as the same, and a machine can go by it.
func FuzzState(f *testing.F) {
	data, err := someState().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	list, err := Parse([]byte(fullList))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeState(data)
		if err != nil {
			return
		}
		again, err := s.encode()
		if err != nil {
			return // A year of more than four digits.
		}
		s2, err := decodeState(again)
		if err != nil {
			t.Fatal(err)
		}
		if third, err := s2.encode(); err != nil || string(third) != string(again) {
			t.Errorf("%s\n%s\n%v", again, third, err)
		}
		now := Now{Wall: time.Unix(1e9, 0)}
		m := New(now, list, s, 1)
		m.Step(now, EvTick{})
		for _, e := range m.entries {
			if e.next > list.Every {
				t.Errorf("the next try is in %v", e.next)
			}
		}
		m.Snapshot(now)
	})
}
