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

// Names with credentials are told from names with a digest.
func TestCheckName(t *testing.T) {
	for _, name := range []string{
		"docker://bob:secret@host/app:v1", "docker://bob@host:5000/app", "oras://bob:sec/ret@host/app", "docker://bob:secret@host",
		"docker://bob:sec@ret@host/app", "https://bob:secret@host/app",
	} {
		err := checkName(name)
		if err == nil || strings.Contains(err.Error()+hintOf(err), "bob") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{
		"app.sif", "a@b.sif", "oci:/data/a@b:v1", "docker://app", "docker://host:5000/app:v1", "docker://app@sha256:" + strings.Repeat("0", 64),
		"oras://host:5000/lab/app:v1@sha256:" + strings.Repeat("0", 64), "docker://app@sha256:00",
	} {
		if err := checkName(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
