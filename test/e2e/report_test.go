package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// report is what --report promises: every field, always, and no other.
type report struct {
	Transfer string  `json:"transfer"`
	Version  string  `json:"version"`
	Host     string  `json:"host"`
	Started  string  `json:"started"`
	Image    string  `json:"image"`
	Kept     string  `json:"kept"`
	Digest   string  `json:"digest"`
	SHA256   string  `json:"sha256"`
	SIF      string  `json:"sif"`
	Bytes    int64   `json:"bytes"`
	Seconds  float64 `json:"seconds"`
	Exit     int     `json:"exit"`
	Nodes    []row   `json:"nodes"`

	Direct    int                 `json:"direct"`
	Unreached []map[string]string `json:"unreached"`
	Unprobed  []string            `json:"unprobed"`
	Unsynced  bool                `json:"unsynced"`
	Plan      map[string]any      `json:"plan"` // of --check only
}

type row struct {
	Node    string         `json:"node"`
	State   string         `json:"state"`
	Digest  string         `json:"digest"`
	Bytes   int64          `json:"bytes"`
	Skipped int64          `json:"skipped"`
	Seconds float64        `json:"seconds"`
	Code    string         `json:"code"`
	Reason  string         `json:"reason"`
	Link    string         `json:"link"`
	Facts   map[string]any `json:"facts"`  // of a device that is overwritten
	Target  string         `json:"target"` // what became of it
}

func readReport(text []byte) (*report, error) {
	var r report
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return nil, err
	}
	var fields struct{ Nodes []map[string]any }
	var top map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &top); err != nil {
		return nil, err
	}
	if missing := lacks(top, "transfer", "version", "host", "started", "image", "kept", "digest", "sif", "bytes", "seconds", "exit", "nodes", "direct", "unreached", "unprobed", "unsynced"); missing != "" {
		return nil, fmt.Errorf("no %s", missing)
	}
	if _, err := time.Parse(time.RFC3339, r.Started); err != nil {
		return nil, err
	}
	states := []string{"committed", "held", "failed", "refused", "unreachable", "pending"} // the last with --check
	for i, n := range fields.Nodes {
		if missing := lacks(n, "node", "state", "digest", "bytes", "skipped", "seconds", "code", "reason", "link"); missing != "" {
			return nil, fmt.Errorf("row %d: no %s", i, missing)
		}
		if !slices.Contains(states, r.Nodes[i].State) {
			return nil, fmt.Errorf("row %d: state %q", i, r.Nodes[i].State)
		}
	}
	return &r, nil
}

func lacks(got map[string]any, names ...string) string {
	for _, name := range names {
		if v, ok := got[name]; !ok || v == nil {
			return name
		}
	}
	return ""
}

func TestReadReport(t *testing.T) {
	row := map[string]any{"node": "a", "state": "held", "digest": "", "bytes": 0, "skipped": 1, "seconds": 0.1, "code": "", "reason": "", "link": ""}
	top := map[string]any{"transfer": "t", "version": "v", "host": "h", "started": "2026-11-27T08:00:00Z", "image": "i", "kept": "", "digest": "", "sif": "", "bytes": 1, "seconds": 1, "exit": 0, "nodes": []any{row}, "direct": 0, "unreached": []any{}, "unprobed": []any{}, "unsynced": false}
	read := func(v any) error {
		text, _ := json.Marshal(v)
		_, err := readReport(text)
		return err
	}
	if err := read(top); err != nil {
		t.Error(err)
	}
	for name := range row {
		bad := maps.Clone(row)
		delete(bad, name)
		all := maps.Clone(top)
		all["nodes"] = []any{bad}
		if read(all) == nil {
			t.Errorf("a row without %s is taken", name)
		}
	}
	for name := range top {
		bad := maps.Clone(top)
		delete(bad, name)
		if read(bad) == nil {
			t.Errorf("a report without %s is taken", name)
		}
	}
	for _, text := range []string{"", "{", strings.Repeat("[", 10)} {
		if _, err := readReport([]byte(text)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
