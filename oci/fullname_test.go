package oci

import (
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

var (
	sha = "sha256:" + strings.Repeat("ab", 32)
	// fullNames are names and what they are in full; "" is none.
	fullNames = map[string]string{
		"busybox": "docker.io/library/busybox:latest", "docker.io/nginx:v2": "docker.io/library/nginx:v2", "lab/app": "docker.io/lab/app:latest",
		"index.docker.io/library/busy:latest": "docker.io/library/busy:latest", "INDEX.Docker.io/busy": "docker.io/library/busy:latest",
		"quay.io/x/y": "quay.io/x/y:latest", "Quay.IO/x/y:V1": "quay.io/x/y:V1", "LocalHost/x": "localhost/x:latest", "localhost:5000/x": "localhost:5000/x:latest",
		"REG:5000/x/y": "reg:5000/x/y:latest", "[::1]:5000/x": "[::1]:5000/x:latest", "[FD00::1]/lab/x:1": "[fd00::1]/lab/x:1",
		"quay.io/x/y:v1@" + sha: "quay.io/x/y@" + sha, "busybox@" + sha: "docker.io/library/busybox@" + sha, "[::1]/x:1@" + sha: "[::1]/x@" + sha,
		"10.0.0.1/x": "10.0.0.1/x:latest", "registry-1.docker.io/library/x": "registry-1.docker.io/library/x:latest",

		"": "", "a b": "", "Busybox": "", "REG/x": "", "quay.io/X/y": "", "quay.io/": "", "/x": "", "x:": "", ":x": "", "x@sha256:12": "", "x:-": "", "docker://x": "",
		"[::1]": "", "[::1]/": "", "[::1]/X": "", "[::1]:/x": "", "[::1]:99999/x": "", "[1.2.3.4]/x": "", "[::1%eth0]/x": "", "[::1]x/y": "", "[::1/x": "",
		strings.Repeat("ab", 32): "", "x/" + strings.Repeat("a", 300): "", "x:" + strings.Repeat("a", 200): "", "quay.io/x//y": "", "x?y": "",
	}
)

func TestFullName(t *testing.T) {
	for name, want := range fullNames {
		got, err := FullName(name)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v, want %q", name, got, err, want)
		}
		if again, err := FullName(got); got != "" && (again != got || err != nil) {
			t.Errorf("%q is %q, %v", got, again, err)
		}
	}
}

// Every source's names go by one rule, and so does the one that is asked for in their place.
func TestNamesOfSources(t *testing.T) {
	m := newImg([]byte("a layer"))
	marked := func(k, name string) string {
		d := m.root
		d.Annotations = map[string]string{k: name}
		return "oci:" + writeDir(t, m.files(d))
	}
	for name, want := range fullNames {
		if strings.Contains(name, sha) {
			continue // of another image
		}
		sources := map[string]string{"containerd": marked(annotationName, name)}
		if hasPath(name) {
			sources["ref.name"] = marked(v1.AnnotationRefName, name)
		}
		sources["docker save"] = "docker-archive:" + writeFile(t, "a.tar", dockerTar(m, name))
		for kind, source := range sources {
			if name == "" {
				continue // there is none
			}
			if want == "" {
				err := openFails(t, source, Options{}, "is none that a runtime could ask for")
				if !strings.HasPrefix(kindTold(err), "name-") {
					t.Errorf("%s %q: kind is %q", kind, name, kindTold(err))
				}
			} else if i := mustOpen(t, source, Options{}); i.Name() != want || i.Ref() != want {
				t.Errorf("%s %q: %q, %q, want %q", kind, name, i.Name(), i.Ref(), want)
			}
			if i := mustOpen(t, source, Options{Name: "Quay.IO/other/x"}); i.Ref() != "quay.io/other/x:latest" || i.Name() != want {
				t.Errorf("%s %q: %q, %q", kind, name, i.Name(), i.Ref())
			}
		}
	}
	// A digest has to be the image's own.
	d := m.root.Digest.String()
	for _, own := range []string{"quay.io/x/y@" + d, "quay.io/x/y:v1@" + d} {
		if i := mustOpen(t, marked(annotationName, own), Options{}); i.Ref() != "quay.io/x/y@"+d {
			t.Errorf("%s is %s", own, i.Ref())
		}
	}
	err := openFails(t, marked(annotationName, "quay.io/x/y@"+sha), Options{}, "is of another image")
	if !strings.HasPrefix(kindTold(err), "name-") {
		t.Errorf("kind is %q", kindTold(err))
	}
	openFails(t, marked(v1.AnnotationRefName, "v1"), Options{Name: "x@" + sha}, "is of another image")
	// That of an index is the chosen manifest's in the name.
	all := index(variant("linux", "amd64", ""), variant("linux", "arm64", ""))
	name := "oci:" + writeDir(t, all.files())
	i := mustOpen(t, name, Options{Platform: "amd64", Name: "x:1@" + all.root.Digest.String()})
	if want := "docker.io/library/x@" + i.Root().Digest.String(); i.Ref() != want {
		t.Errorf("%s, want %s", i.Ref(), want)
	}
}

// What has no name is called after its file, and the REF behind the path.
func TestLocalName(t *testing.T) {
	m := newImg([]byte("a layer"))
	d := m.root
	d.Annotations = map[string]string{v1.AnnotationRefName: "v1"}
	i := mustOpen(t, "oci:"+writeDir(t, m.files(d))+":v1", Options{})
	for ref, want := range map[string]string{
		"": "localhost/app:v1", "v1": "localhost/app:v1", sha: "localhost/app@" + m.root.Digest.String(), "v1+b": "", "a/b": "", "a:b": "", "-": "",
	} {
		got, err := i.LocalName("localhost/app", ref)
		if got != want || want == "" && !strings.HasPrefix(kindTold(err), "name-") {
			t.Errorf("%q is %q, %v", ref, got, err)
		}
	}
	if i.Name() != "" || i.Ref() != "" {
		t.Errorf("%q, %q", i.Name(), i.Ref())
	}
	// Of several tags none is chosen, and what can be no tag is none.
	for want, tags := range map[string][]string{
		"localhost/app:v1": {"v1"}, "localhost/app:latest": {"v1", "v2"}, "localhost/app:V-1.2_3": {"V-1.2_3"},
	} {
		var list []v1.Descriptor
		for _, tag := range tags {
			d := m.root
			d.Annotations = map[string]string{v1.AnnotationRefName: tag}
			list = append(list, d)
		}
		if got, err := mustOpen(t, "oci:"+writeDir(t, m.files(list...)), Options{}).LocalName("localhost/app", ""); got != want || err != nil {
			t.Errorf("with the tags %q: %q, %v; want %q", tags, got, err, want)
		}
	}
	for _, tag := range []string{"v1+b", "-", ""} {
		d := m.root
		d.Annotations = map[string]string{v1.AnnotationRefName: tag}
		if got, err := mustOpen(t, "oci:"+writeDir(t, m.files(d)), Options{}).LocalName("localhost/app", ""); got != "localhost/app:latest" || err != nil {
			t.Errorf("with the tag %q: %q, %v", tag, got, err)
		}
	}
}

// Images of one layout are told apart by all their names, and no name is taken for one of several.
func TestPick(t *testing.T) {
	web, db, old := newImg([]byte("web")), newImg([]byte("db")), newImg([]byte("old"))
	entry := func(m *img, ref, full string) v1.Descriptor {
		d := m.root
		d.Platform = nil
		d.Annotations = map[string]string{}
		if ref != "" {
			d.Annotations[v1.AnnotationRefName] = ref
		}
		if full != "" {
			d.Annotations[annotationName] = full
		}
		return d
	}
	files := index(web, db, old)
	two := []v1.Descriptor{entry(web, "latest", "docker.io/library/web:latest"), entry(db, "latest", "docker.io/library/db:latest")}
	bare := []v1.Descriptor{entry(web, "latest", ""), entry(db, "latest", ""), entry(old, "", "")}
	twice := []v1.Descriptor{entry(web, "v1", "lab/web:v1"), entry(web, "v1", "lab/copy:v1"), entry(db, "", "quay.io/lab/web:v1")}
	short := []v1.Descriptor{entry(web, "Quay.IO/lab/web", ""), entry(db, "lab/db:1", ""), entry(old, "v1", "")}
	tags := []v1.Descriptor{entry(web, "v1", ""), entry(web, "v2", "")}
	for _, c := range []struct {
		entries []v1.Descriptor
		ref     string
		want    *img
		name    string
		err     string
	}{
		{two, "db:latest", db, "docker.io/library/db:latest", ""},
		{two, "db", db, "docker.io/library/db:latest", ""},
		{two, "docker.io/library/db:latest", db, "docker.io/library/db:latest", ""},
		{two, "index.docker.io/web", web, "docker.io/library/web:latest", ""},
		{two, db.root.Digest.String(), db, "docker.io/library/db:latest", ""},
		{two, "latest", nil, "", `"latest" may be any of 2 images: docker.io/library/web:latest, docker.io/library/db:latest`},
		{two, "", nil, "", "has 2 images: docker.io/library/web:latest, docker.io/library/db:latest"},
		{two, "none", nil, "", `has no "none", only docker.io/library/web:latest, docker.io/library/db:latest`},
		{bare, "latest", nil, "", `"latest" may be any of 2 images: latest (` + web.root.Digest.String() + "), latest (" + db.root.Digest.String() + ")"},
		{bare, web.root.Digest.String(), web, "", ""},
		{bare, old.root.Digest.String(), old, "", ""},
		{bare, "", nil, "", "has 3 images"},
		{twice, "v1", nil, "", `"v1" may be any of 2 images: docker.io/lab/web:v1, docker.io/lab/copy:v1`},
		{twice, "lab/copy:v1", web, "docker.io/lab/copy:v1", ""},
		{twice, "quay.io/lab/web:v1", db, "quay.io/lab/web:v1", ""},
		{short, "quay.io/lab/web:latest", web, "quay.io/lab/web:latest", ""},
		{short, "Quay.IO/lab/web", web, "quay.io/lab/web:latest", ""},
		{short, "lab/db:1", db, "docker.io/lab/db:1", ""},
		{short, "v1", old, "", ""},
		{tags, "v2", web, "", ""},
		{tags, "", web, "", ""},
	} {
		for kind, name := range everywhere(t, files.files(c.entries...)) {
			if c.ref != "" {
				name += ":" + c.ref
			}
			if c.err != "" {
				if err := openFails(t, name, Options{}, c.err); kindTold(err) == "" {
					t.Errorf("%s %q: no hint", kind, c.ref)
				}
				continue
			}
			i := mustOpen(t, name, Options{})
			if c.want.check(t, i); i.Name() != c.name {
				t.Errorf("%s %q is called %q, want %q", kind, c.ref, i.Name(), c.name)
			}
		}
	}
}

// dockerTar is an archive of docker save with the image under a tag.
func dockerTar(m *img, tag string) []byte {
	layer := m.blobs[m.layers[0].Digest]
	return asTar(file("layer.tar", layer), file("config.json", m.blobs[m.config.Digest]),
		file("manifest.json", asJSON([]dockerImage{{Config: "config.json", RepoTags: []string{tag}, Layers: []string{"layer.tar"}}})))
}
