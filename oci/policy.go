package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// CheckPolicy returns an error unless the policy.json in force lets the image in without a
// check. Nothing here verifies signatures, so an image whose signature the policy demands is
// refused. If there is no policy.json, everything is let in. Name is the image as given to Open, or
// sif: and a path. Ref is the full name of the image if it has one.
//
// https://github.com/containers/image/blob/main/docs/containers-policy.json.5.md
func CheckPolicy(name, ref string) error {
	file, raw, err := readPolicy()
	if err != nil || raw == nil {
		return err
	}
	p, err := decodePolicy(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	transport, scope := Split(name)
	if file, ok := strings.CutPrefix(name, "sif:"); ok { // Split does not know this transport
		transport, scope = "sif", file
	}
	switch transport {
	case "sif":
		if scope, err = realPath(scope); err != nil {
			return err
		}
	case "docker", "oras":
		transport, scope = "docker", ref
	default:
		path, _, _ := strings.Cut(scope, ":")
		if scope, err = realPath(path); err != nil {
			return err
		}
	}
	for _, r := range p.requirements(transport, scope) {
		switch r.Type {
		case "insecureAcceptAnything":
		case "reject":
			return errkind.Errorf("policy-rejects", "%s rejects %s", file, name)
		default:
			return errkind.Errorf("policy-signature",
				"%s demands a signature (%s) of %s, and this program cannot check one", file, r.Type, name)
		}
	}
	return nil
}

func realPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real, nil
	}
	return abs, nil
}

// policyFiles returns where the containers tools look for the policy. The first file that exists is the policy.
var policyFiles = func() []string {
	var list []string
	if home, err := os.UserHomeDir(); err == nil {
		list = append(list, filepath.Join(home, ".config/containers/policy.json"))
	}
	return append(list, "/etc/containers/policy.json")
}

func readPolicy() (file string, raw []byte, err error) {
	for _, file := range policyFiles() {
		raw, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return file, raw, err
	}
	return "", nil, nil
}

type policy struct {
	Default    []requirement                       `json:"default"`
	Transports map[string]map[string][]requirement `json:"transports"`
}

type requirement struct {
	Type string `json:"type"`
}

func decodePolicy(raw []byte) (*policy, error) {
	p := new(policy)
	if err := json.Unmarshal(raw, p); err != nil {
		return nil, err
	}
	if len(p.Default) == 0 {
		return nil, errors.New("no default")
	}
	for transport, scopes := range p.Transports {
		for scope, r := range scopes {
			if len(r) == 0 { // no requirement at all would let everything in
				return nil, fmt.Errorf("no requirements for %s:%s", transport, scope)
			}
		}
	}
	return p, nil
}

// requirements returns the requirements of the most specific scope: the name itself, then the
// scopes above it, then the default of the transport, then that of the policy.
func (p *policy) requirements(transport, scope string) []requirement {
	scopes := p.Transports[transport]
	for s := scope; s != ""; s = parent(s) {
		if r, ok := scopes[s]; ok {
			return r
		}
	}
	if transport == "docker" { // *.example.com
		host, _, _ := strings.Cut(scope, "/")
		for {
			_, rest, ok := strings.Cut(host, ".")
			if !ok {
				break
			}
			if r, ok := scopes["*."+rest]; ok {
				return r
			}
			host = rest
		}
	}
	if r, ok := scopes[""]; ok {
		return r
	}
	return p.Default
}

// parent returns the scope above: the name without its tag or digest, and then without its last element.
func parent(s string) string {
	if i := strings.LastIndexByte(s, '@'); i > 0 {
		return s[:i]
	}
	slash := strings.LastIndexByte(s, '/')
	if i := strings.LastIndexByte(s, ':'); i > slash && slash >= 0 {
		return s[:i]
	}
	if slash < 0 {
		return ""
	}
	return s[:slash]
}
