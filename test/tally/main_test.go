package main

import (
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		failed   bool
		want     []string
	}{
		{"nothing", "", true, []string{"no test was run", "0 passed, 0 failed, 0 skipped"}},
		{"pass", `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"noise\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Elapsed":1}`, false, []string{"ok    p", "1 passed, 0 failed, 0 skipped"}},
		{"skip", `{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:7: not root: needs namespaces\n"}
{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestB"}
{"Action":"skip","Package":"q"}`, false, []string{"skipped: p TestA: not root: needs namespaces\n", "1 passed, 0 failed, 1 skipped"}},
		{"fail", `{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:7: wrong\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}`, true, []string{"a_test.go:7: wrong", "FAIL  p", "0 passed, 1 failed, 0 skipped"}},
		{"build", `{"ImportPath":"p","Action":"build-output","Output":"x.go:1: undefined\n"}
{"ImportPath":"p","Action":"build-fail"}
{"Action":"pass","Package":"q","Test":"TestB"}
{"Action":"fail","Package":"p","FailedBuild":"p"}`, true, []string{"x.go:1: undefined", "1 passed, 1 failed, 0 skipped"}},
		{"died", `{"Action":"pass","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Output":"panic: test timed out\n"}
{"Action":"fail","Package":"p"}`, true, []string{"panic: test timed out", "1 passed, 1 failed, 0 skipped"}},
		{"times", `{"Action":"pass","Package":"p","Test":"TestA/row","Elapsed":3}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":3}
{"Action":"pass","Package":"p","Test":"TestB","Elapsed":40.25}
{"Action":"pass","Package":"p","Test":"TestC","Elapsed":0.5}`, false, []string{" 40.2 s  p TestB\n  3.0 s  p TestA\n4 passed"}},
		{"go itself", "go: no such tool", true, []string{"go: no such tool"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			failed, err := tally(strings.NewReader(tt.in), &out)
			if err != nil || failed != tt.failed {
				t.Errorf("failed %v, %v", failed, err)
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in\n%s", want, &out)
				}
			}
			if last := out.String()[strings.LastIndex(strings.TrimSpace(out.String()), "\n")+1:]; !strings.Contains(last, "passed, ") {
				t.Errorf("last line %q", last)
			}
		})
	}
}
