package oci

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// changed is an image whose manifest has other layers than its config.
func changed(m *img, config []byte, layers ...v1.Descriptor) *img {
	n := &img{blobs: maps.Clone(m.blobs), list: slices.Clone(m.list[:len(m.list)-1])}
	n.config, n.layers = m.config, layers
	if config != nil {
		n.config = n.put(m.config.MediaType, config)
	}
	n.root = n.put(v1.MediaTypeImageManifest, asJSON(v1.Manifest{
		Versioned: versioned, MediaType: v1.MediaTypeImageManifest, Config: n.config, Layers: n.layers}))
	return n
}

func TestManifestAgreesWithConfig(t *testing.T) {
	m := newImg([]byte("one"), []byte("two"), []byte("three"))
	l := m.layers
	artifact := *m
	artifact.config.MediaType = "application/vnd.example.config.v1+json"
	docker := *m
	docker.config.MediaType = mediaTypeDockerConfig
	away := l[1]
	away.URLs = []string{"https://example.com/layer"}
	odd := func(mediaType string) v1.Descriptor {
		d := l[2]
		d.MediaType = mediaType
		return d
	}
	sparse := func(rootfs string) []byte { return []byte(`{"os":"linux","architecture":"amd64"` + rootfs + `}`) }
	for name, c := range map[string]struct {
		m    *img
		want string
	}{
		"right":                   {m, ""},
		"no layers":               {changed(m, nil), "the manifest has 0 layers, but the config of the image has 3"},
		"one is missing":          {changed(m, nil, l[0], l[2]), "has 2 layers, but the config of the image has 3"},
		"one more":                {changed(m, nil, l[0], l[1], l[2], l[2]), "has 4 layers"},
		"reversed":                {changed(m, nil, l[2], l[1], l[0]), "another order in the manifest than in the config of the image: layer 1 is"},
		"two exchanged":           {changed(m, nil, l[0], l[2], l[1]), "another order in the manifest than in the config of the image: layer 2 is"},
		"another file":            {changed(m, dockerConfig([]byte("one"), []byte("2"), []byte("three")), l...), "layer 2 of the manifest is"},
		"Docker's config, wrong":  {changed(&docker, nil, l[0]), "has 1 layers"},
		"rootfs without diff_ids": {changed(m, sparse(`,"rootfs":{"type":"layers"}`), l[0]), "has 1 layers, but the config of the image has 0"},
		"no rootfs":               {changed(m, sparse(""), l[0]), ""},
		"no layers, no rootfs":    {changed(m, sparse("")), ""},
		"no image":                {changed(&artifact, nil, l[0]), ""},
		"a layer lies elsewhere":  {changed(m, nil, l[0], away, l[2]), ""},
		"unknown kind of layer":   {changed(m, dockerConfig([]byte("one"), []byte("two"), []byte("3")), l[0], l[1], odd("application/vnd.example.layer+encrypted")), ""},
		"exchanged, called gzip":  {packed(v1.MediaTypeImageLayerGzip, [][]byte{[]byte("one"), []byte("two")}, []byte("two"), []byte("one")), "another order in the manifest"},
		"exchanged, of no kind":   {packed("", [][]byte{[]byte("one"), []byte("two")}, []byte("two"), []byte("one")), "another order in the manifest"},
		"odd diff_id":             {changed(m, sparse(`,"rootfs":{"diff_ids":["sha256:../.."]}`), l[0]), `diff_id "sha256:../.." of layer 1`},
		"config is no JSON":       {changed(m, []byte("{"), l...), "config sha256:"},
		"config of another form":  {changed(m, []byte(`{"rootfs":7}`), l...), "config sha256:"},
	} {
		for kind, path := range everywhere(t, c.m.files()) {
			t.Run(name+" in "+kind, func(t *testing.T) {
				i := mustOpen(t, path, Options{})
				_, err := i.Check(t.Context(), i, CheckOptions{})
				if c.want != "" {
					fails(t, err, c.want)
				} else if err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// Each image of a list that goes whole has to agree.
func TestEveryPlatformAgrees(t *testing.T) {
	good := imgFor("linux/amd64", []byte("a"))
	bad := changed(imgFor("linux/arm64", []byte("b")), nil)
	bad.root.Platform = &v1.Platform{OS: "linux", Architecture: "arm64"}
	list := index(good, bad)
	for _, path := range everywhere(t, list.files()) {
		i := mustOpen(t, path, Options{AllPlatforms: true})
		_, err := i.Check(t.Context(), i, CheckOptions{})
		fails(t, err, "has 0 layers")
		i = mustOpen(t, path, Options{Platform: "linux/amd64"})
		if _, err := i.Check(t.Context(), i, CheckOptions{}); err != nil {
			t.Errorf("the one that is sent: %v", err)
		}
	}
}

// docker save of version 25 and later: a layout and a manifest.json in one tar. What the two
// agree on goes, else what manifest.json and the config do. Reported as moby 47065, 47150, 47210.
func TestBothKindsInOneArchive(t *testing.T) {
	one, two, three := noise(3000), []byte("two"), []byte("three")
	m := newImg(one, two, three)
	l := m.layers
	both := func(m *img, list []dockerImage, index []byte) []byte {
		files := m.files()
		files["manifest.json"] = asJSON(list)
		if index != nil {
			files["index.json"] = index
		}
		return asTar(regular(files)...)
	}
	names := func(config v1.Descriptor, layers ...v1.Descriptor) []dockerImage {
		image := dockerImage{Config: blobFile(config), RepoTags: []string{"app:v1"}}
		for _, d := range layers {
			image.Layers = append(image.Layers, blobFile(d))
		}
		return []dockerImage{image}
	}
	good := names(m.config, l...)
	other := newImg([]byte("other"))
	withOther := &img{blobs: maps.Clone(m.blobs), root: m.root}
	maps.Copy(withOther.blobs, other.blobs)
	ga, gb := asGzip(one), asGzip(two)
	zipped := packed(v1.MediaTypeImageLayerGzip, [][]byte{one, two}, ga, gb)
	turned := packed(v1.MediaTypeImageLayerGzip, [][]byte{one, two}, gb, ga)
	for name, c := range map[string]struct {
		raw    []byte
		kind   string
		note   string
		layers [][]byte
	}{
		"good":                    {both(m, good, nil), "oci-archive", "", [][]byte{one, two, three}},
		"no layers":               {both(changed(m, nil), good, nil), "docker-archive", "has 0 layers", [][]byte{one, two, three}},
		"reversed":                {both(changed(m, nil, l[2], l[1], l[0]), good, nil), "docker-archive", "another order", [][]byte{one, two, three}},
		"null index":              {both(m, good, []byte(`{"schemaVersion":2,"manifests":null}`)), "docker-archive", "no image in it", [][]byte{one, two, three}},
		"torn index":              {both(m, good, []byte(`{"schemaVersion":2,`)), "docker-archive", "index.json", [][]byte{one, two, three}},
		"another image":           {both(withOther, names(other.config, other.layers...), nil), "docker-archive", "different images", [][]byte{[]byte("other")}},
		"compressed":              {both(zipped, names(zipped.config, zipped.layers...), nil), "oci-archive", "", [][]byte{ga, gb}},
		"compressed and reversed": {both(turned, names(turned.config, turned.layers[1], turned.layers[0]), nil), "docker-archive", "different layers", [][]byte{ga, gb}},
		"both are wrong":          {both(changed(m, nil), names(m.config, l[0]), nil), "oci-archive", "", nil},
	} {
		for form, raw := range map[string][]byte{"tar": c.raw, "zstd": asZstd(c.raw)} {
			t.Run(name+" in "+form, func(t *testing.T) {
				checkKind(t, raw, c.kind, c.note, c.layers)
			})
		}
	}
}

// checkKind compares what Kind says about an archive, and the layers that are sent; without layers the image must be wrong.
func checkKind(t *testing.T, raw []byte, wantKind, wantNote string, layers [][]byte) {
	t.Helper()
	path := writeFile(t, "a", raw)
	kind, note, err := Kind(t.Context(), path, Options{})
	if err != nil || kind != wantKind || (note == "") != (wantNote == "") || !bytes.Contains([]byte(note), []byte(wantNote)) {
		t.Fatalf("%q, %q, %v", kind, note, err)
	}
	i := mustOpen(t, kind+":"+path, Options{})
	s, err := i.Check(t.Context(), i, CheckOptions{})
	if layers == nil {
		fails(t, err, "has 0 layers")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := readAsSent(s); err != nil {
		t.Fatal(err)
	}
	blobs, _ := i.Blobs(t.Context())
	for n, want := range layers {
		if blobs[n].Digest != digest.FromBytes(want) {
			t.Errorf("layer %d is %s", n, blobs[n].Digest)
		}
	}
}
