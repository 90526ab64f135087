package oci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// within has CheckPolicy look into these files only.
func within(t *testing.T, files ...string) {
	old := policyFiles
	policyFiles = func() []string { return files }
	t.Cleanup(func() { policyFiles = old })
}

func TestPolicy(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, dir+"/link"); err != nil {
		t.Fatal(err)
	}
	const accept, reject, signed = `[{"type":"insecureAcceptAnything"}]`, `[{"type":"reject"}]`, `[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/key"}]`
	// default and, of transports, what follows it
	policy := func(def, transports string) string {
		transports = strings.NewReplacer("DIR", dir, "ACCEPT", accept, "REJECT", reject, "SIGNED", signed).Replace(transports)
		return `{"default":` + def + `,"transports":{` + transports + `}}`
	}
	const rejects, demands = "rejects", "demands a signature (signedBy)"
	for _, c := range []struct {
		policy, name, ref, want string
	}{
		{policy(accept, ""), "docker://app", "docker.io/library/app:latest", ""},
		{policy(reject, ""), "docker://app", "docker.io/library/app:latest", rejects},
		{policy(signed, ""), "docker://app", "docker.io/library/app:latest", demands},
		{policy(reject, ""), "oci:" + dir, "", rejects},
		{policy(signed, ""), "sif:" + dir + "/a:b.sif", "", demands},
		{policy(reject, `"sif":{"DIR":ACCEPT}`), "sif:" + dir + "/a.sif", "", ""},
		{policy(accept, `"sif":{"DIR/a.sif":REJECT}`), "sif:" + dir + "/a.sif", "", rejects},
		{policy(signed, ""), "docker-archive:a.tar", "docker.io/library/app:latest", demands},
		{policy(`[{"type":"insecureAcceptAnything"},{"type":"reject"}]`, ""), "docker://a", "docker.io/library/a:1", rejects},
		{policy(`[{"type":"insecureAcceptAnything"},{"type":"sigstoreSigned"}]`, ""), "docker://a", "docker.io/library/a:1", "(sigstoreSigned)"},
		{policy(`[{"type":"of tomorrow"}]`, ""), "docker://a", "docker.io/library/a:1", "(of tomorrow)"},
		{policy(`[{}]`, ""), "docker://a", "docker.io/library/a:1", "demands"},

		// the most specific one wins, in both directions
		{policy(accept, `"docker":{"":REJECT}`), "docker://a", "docker.io/library/a:1", rejects},
		{policy(accept, `"docker":{"":REJECT}`), "oras://a", "docker.io/library/a:1", rejects},
		{policy(accept, `"docker":{"":REJECT}`), "oci:" + dir, "", ""},
		{policy(reject, `"docker":{"":ACCEPT}`), "docker://a", "docker.io/library/a:1", ""},
		{policy(reject, `"docker":{"docker.io":ACCEPT}`), "docker://a", "docker.io/library/a:1", ""},
		{policy(reject, `"docker":{"docker.io":ACCEPT}`), "docker://a", "docker.io.example.com/a:1", rejects},
		{policy(accept, `"docker":{"docker.io":ACCEPT,"docker.io/library":REJECT}`), "docker://a", "docker.io/library/a:1", rejects},
		{policy(accept, `"docker":{"docker.io/library":REJECT}`), "docker://a", "docker.io/library2/a:1", ""},
		{policy(accept, `"docker":{"docker.io/library":ACCEPT,"docker.io/library/a":SIGNED}`), "docker://a", "docker.io/library/a:1", demands},
		{policy(reject, `"docker":{"docker.io/library/a":REJECT,"docker.io/library/a:1":ACCEPT}`), "docker://a", "docker.io/library/a:1", ""},
		{policy(accept, `"docker":{"docker.io/library/a:1":REJECT}`), "docker://a", "docker.io/library/a:12", ""},
		{policy(accept, `"docker":{"h:5000":REJECT}`), "docker://h:5000/a", "h:5000/a/b:1", rejects},
		{policy(accept, `"docker":{"h":REJECT}`), "docker://h:5000/a", "h:5000/a:1", ""},
		{policy(accept, `"docker":{"h/a":REJECT}`), "docker://h/a@sha256:1", "h/a@sha256:1", rejects},
		{policy(accept, `"docker":{"h/a:1":REJECT}`), "docker://h/a:1@sha256:1", "h/a:1@sha256:1", rejects},

		// hosts below a domain
		{policy(accept, `"docker":{"*.example.com":REJECT}`), "docker://x", "reg.example.com/a:1", rejects},
		{policy(accept, `"docker":{"*.example.com":REJECT}`), "docker://x", "a.b.example.com/a:1", rejects},
		{policy(accept, `"docker":{"*.example.com":REJECT}`), "docker://x", "example.com/a:1", ""},
		{policy(accept, `"docker":{"*.example.com":REJECT}`), "docker://x", "badexample.com/a:1", ""},
		{policy(accept, `"docker":{"*.com":ACCEPT,"*.example.com":REJECT}`), "docker://x", "reg.example.com/a:1", rejects},
		{policy(accept, `"docker":{"*.example.com":REJECT,"reg.example.com":ACCEPT}`), "docker://x", "reg.example.com/a:1", ""},
		{policy(accept, `"docker":{"":ACCEPT,"*.example.com":REJECT}`), "docker://x", "reg.example.com/a:1", rejects},

		// paths, as they are and through links; a reference is not part of one
		{policy(accept, `"oci":{"DIR":REJECT}`), "oci:" + dir, "", rejects},
		{policy(accept, `"oci":{"DIR":REJECT}`), "oci:" + dir + "/below:ref", "", rejects},
		{policy(accept, `"oci":{"DIR":REJECT}`), "oci:" + dir + "/link:a/b:c", "", rejects},
		{policy(accept, `"oci":{"DIR":REJECT}`), "oci:" + dir + "2", "", ""},
		{policy(accept, `"oci":{"DIR":REJECT}`), "oci-archive:" + dir, "", ""},
		{policy(accept, `"oci-archive":{"DIR/a.tar":SIGNED}`), "oci-archive:" + dir + "/../" + filepath.Base(dir) + "/a.tar:x", "", demands},
		{policy(reject, `"docker-archive":{"":ACCEPT}`), "docker-archive:a.tar:app:1", "docker.io/library/app:1", ""},

		// what is no policy lets nothing in
		{`{}`, "docker://a", "docker.io/library/a:1", "no default"},
		{`{"default":[]}`, "docker://a", "docker.io/library/a:1", "no default"},
		{`null`, "docker://a", "docker.io/library/a:1", "no default"},
		{``, "docker://a", "docker.io/library/a:1", "unexpected end of JSON"},
		{policy(accept, "")[:20], "docker://a", "docker.io/library/a:1", "unexpected end of JSON"},
		{`{"default":"reject"}`, "docker://a", "docker.io/library/a:1", "cannot unmarshal"},
		{policy(reject, `"docker":{"docker.io":[]}`), "docker://a", "docker.io/library/a:1", "no requirements for docker:docker.io"},
		{policy(reject, `"docker":{"":null}`), "docker://a", "docker.io/library/a:1", "no requirements for docker:"},
		{policy(reject, `"oci":{"/":[]}`), "docker://a", "docker.io/library/a:1", "no requirements for oci:/"},
	} {
		path := writeFile(t, "policy.json", []byte(c.policy))
		within(t, path, "/nonexistent")
		err := CheckPolicy(c.name, c.ref)
		if c.want == "" && err != nil {
			t.Errorf("%s: %s (%s): %v", c.policy, c.name, c.ref, err)
		} else if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path)) {
			t.Errorf("%s: %s (%s): error is %v, want one with %q", c.policy, c.name, c.ref, err, c.want)
		}
		if strings.HasPrefix(c.want, "demands") && kindTold(err) == "" {
			t.Errorf("%s: no hint", c.policy)
		}
	}
}

// The first file there is counts; one that cannot be read is not passed over.
func TestPolicyFiles(t *testing.T) {
	const name, ref = "docker://a", "docker.io/library/a:1"
	accept := writeFile(t, "a", []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`))
	reject := writeFile(t, "r", []byte(`{"default":[{"type":"reject"}]}`))
	none := filepath.Join(t.TempDir(), "none")
	for _, c := range []struct {
		files []string
		want  string
	}{
		{nil, ""}, {[]string{none, none}, ""}, {[]string{none, reject}, "rejects"}, {[]string{accept, reject}, ""},
		{[]string{reject, accept}, "rejects"}, {[]string{t.TempDir(), accept}, "is a directory"},
	} {
		within(t, c.files...)
		if err := CheckPolicy(name, ref); c.want == "" && err != nil {
			t.Errorf("%q: %v", c.files, err)
		} else if c.want != "" {
			fails(t, err, c.want)
		}
	}
}
