package warm

import (
	"fmt"
	"path"
	"strings"
)

// twins fails entries that have the name of an earlier one in the caches, where the list alone tells it: a cache has room for one of them. What
// names are depends on files and on registries.conf, too, so others are found when their names are known (Machine.give).
func (r *reader) twins() {
	names, patterns := map[string]int{}, map[string][]int{}
	for n := range r.list.Images {
		i := &r.list.Images[n]
		name := i.cacheName()
		if name == "" {
			continue
		}
		if i.Tags != "" {
			patterns[name] = append(patterns[name], n)
			continue
		}
		if first, is := names[name]; is && r.list.Images[first].key() != i.key() {
			r.twin(n, first, "has the same name in the caches as the image in line %d; give one of them another one with the key name")
		} else if !is {
			names[name] = n
		}
	}
	for n := range r.list.Images {
		i := &r.list.Images[n]
		repository, tag, ok := cutTag(i.cacheName())
		if i.Tags != "" || i.Name != "" || !ok {
			continue
		}
		for _, p := range patterns[repository] {
			if r.list.Images[p].Matches(tag) {
				r.twin(n, p, "is one of those that the tags in line %d match; give it another name with the key name, or leave it out")
			}
		}
	}
}

func (r *reader) twin(n, first int, format string) {
	i := &r.list.Images[n]
	key, value := "ref", i.Ref
	if i.Name != "" {
		key, value = "name", i.Name
	}
	r.fail(fmt.Sprintf("image.%d.%s", n, key), "%s = %q: "+format, key, value, r.lines[fmt.Sprintf("image.%d.ref", first)])
}

// cacheName returns the name of an entry in the caches, as far as it can be known without files and registries, or "". That of an entry with Tags is
// its repository. A name of a registry that registries.conf may complete begins with "?".
func (i *Image) cacheName() string {
	name, short := i.Name, "docker.io/"
	switch {
	case hasCredentials(i.Ref) || hasCredentials("docker://"+name):
		return ""
	case name != "":
	case registry(i.Ref) != "":
		_, name, _ = strings.Cut(i.Ref, "://")
		short = "?"
	case strings.HasSuffix(i.Ref, ".sif") && !strings.Contains(i.Ref, ":"):
		return "file " + path.Base(i.Ref)
	default:
		return ""
	}
	if host, rest, ok := strings.Cut(name, "/"); ok && isHost(host) {
		if host = strings.ToLower(host); host == "index.docker.io" {
			host = "docker.io"
		}
		name = host + "/" + rest
	} else {
		name = short + name
	}
	if rest, ok := strings.CutPrefix(name, "docker.io/"); ok && !strings.Contains(rest, "/") {
		name = "docker.io/library/" + rest
	}
	repository, digest, isDigest := strings.Cut(name, "@")
	bare, _, tagged := cutTag(repository)
	switch {
	case isDigest && tagged:
		return bare + "@" + digest
	case isDigest || tagged || i.Tags != "":
		return name
	}
	return name + ":latest"
}

// cutTag cuts a name at the colon before its tag.
func cutTag(name string) (repository, tag string, ok bool) {
	at := strings.LastIndexByte(name, ':')
	if at < strings.LastIndexByte(name, '/') || at < 0 || strings.Contains(name, "@") {
		return name, "", false
	}
	return name[:at], name[at+1:], true
}
