package main

import (
	"strings"
	"testing"
)

// What is no terminal gives the login in one line, as a file does.
func TestAsk(t *testing.T) {
	for in, want := range map[string]string{
		"lab:secret\n": "lab secret", "lab:secret": "lab secret", "lab:sec:ret\r\n": "lab sec:ret", "lab:\n": "lab ",
		"lab\nsecret\n": "", "secret\n": "", ":secret\n": "", "": "",
	} {
		var out strings.Builder
		user, password, err := ask(strings.NewReader(in), &out)
		if got := user + " " + password; (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") || out.Len() > 0 {
			t.Errorf("%q: it prints %q, %v", in, out.String(), err)
		}
	}
}
