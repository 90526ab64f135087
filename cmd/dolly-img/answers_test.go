package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/rogpeppe/go-internal/testscript"
)

// scriptAnswers starts a registry that gives one answer to everything but the question whether it is one.
func scriptAnswers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: answers NAME STATUS [RETRY-AFTER]")
	}
	status := int(scriptNumber(ts, args[:2], 2, 1))
	asked, err := os.Create(ts.MkAbs(args[0] + ".asked"))
	ts.Check(err)
	var one sync.Mutex
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		one.Lock()
		defer one.Unlock()
		_, _ = asked.WriteString(r.Method + " " + r.URL.Path + "\n")
		if len(args) == 3 {
			w.Header().Set("Retry-After", args[2])
		}
		if status == http.StatusOK {
			w.Header().Set("Docker-Content-Digest", digest.FromString("something else").String())
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte("{}"))
	}))
	ts.Defer(func() {
		s.Close()
		asked.Close()
	})
	ts.Setenv(args[0], strings.TrimPrefix(s.URL, "http://"))
}
