package main

import (
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
	"github.com/dolly-img/dolly-img/ring"
)

// wanted is an IMAGE of the command line.
type wanted struct {
	arg string
	// ref is arg without the digest, which is "" if it has none.
	ref    string
	digest digest.Digest
	// names are the full names that arg may have in a cache. It is empty for a short name, which only the nodes can complete.
	names []string
}

func wants(args []string) ([]wanted, error) {
	var list []wanted
	for _, arg := range args {
		if err := image.CheckName(arg); err != nil {
			return nil, &usageError{err: err}
		}
		w := wanted{arg: arg, ref: arg}
		if d := digest.Digest(arg); d.Validate() == nil {
			w.ref, w.digest = "", d
			list = append(list, w)
			continue
		}
		if ref, d, ok := strings.Cut(arg, "@"); ok {
			if w.ref, w.digest = ref, digest.Digest(d); w.digest.Validate() != nil {
				return nil, usagef("%s: %q is no digest", arg, d)
			}
		}
		// An image that was pushed by its digest alone has that in its name.
		for _, ref := range []string{w.ref, arg} {
			if full, ok := image.Full(ref); ok && (len(w.names) == 0 || w.names[0] != full) {
				w.names = append(w.names, full)
			}
		}
		for _, name := range w.names {
			if len(name) > ring.MaxImageName {
				return nil, usagef("%.40s…: the name has more than %d bytes", arg, ring.MaxImageName)
			}
		}
		list = append(list, w)
	}
	if len(list) > ring.MaxImages/2 {
		return nil, usagef("%d images: at most %d can be asked about at once", len(list), ring.MaxImages/2)
	}
	return list, nil
}

// question returns what nodes have to be asked to know about all of these.
func question(list []wanted) ring.Question {
	q := ring.Question{All: len(list) == 0}
	for _, w := range list {
		switch {
		case w.ref == "":
			q.Images = append(q.Images, ring.Image{Digest: w.digest})
		case len(w.names) == 0:
			q.All = true
		}
		for _, name := range w.names {
			q.Images = append(q.Images, ring.Image{Name: name, Digest: w.digest})
		}
	}
	return q
}

// meant returns those of some names that w means.
func (w wanted) meant(names []string) []string {
	if w.ref == "" {
		return nil
	}
	if w.digest != "" {
		if by := image.Meant(names, w.arg); len(by) > 0 {
			return by
		}
	}
	return image.Meant(names, w.ref)
}

// unmet returns the name that is shown of an image that no node has.
func (w wanted) unmet() string { return append(slices.Clone(w.names), w.ref)[0] }
