package oci

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/pkg/sysregistriesv2"
	"github.com/containers/image/v5/types"
	"github.com/pelletier/go-toml/v2"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// nodeMirror is the header in every answer of a mirror that a node of this project serves. Such a mirror has what was
// pushed to its node. If a name were resolved there after its tag has moved, the old image would be pushed again, and
// all nodes would say that they hold it.
const nodeMirror = "X-Dolly-Img-Mirror"

var errNodeMirror = errors.New("it is the mirror of a node, which has the image as it was when it was pushed there")

const (
	probeLimit = 5 * time.Second // how long one request may take
	dockerHub  = "docker.io"     // this registry answers at another address
)

// withoutNodes returns sys without the mirrors in registries.conf that are nodes. It also leaves out mirrors that do not
// say what they are, because they may answer as a node later. Typed says that the user wrote the host of the
// registry: then it stays, whatever it is. Free removes the file that the returned context needs.
func withoutNodes(ctx context.Context, sys *types.SystemContext, named reference.Named, typed bool) (_ *types.SystemContext, free func(), err error) {
	free = func() {}
	conf, err := sysregistriesv2.FindRegistry(sys, named.Name())
	if err != nil {
		return nil, free, fmt.Errorf("registries.conf: %w", err)
	}
	if conf == nil {
		conf = &sysregistriesv2.Registry{Prefix: reference.Domain(named), Endpoint: sysregistriesv2.Endpoint{Location: reference.Domain(named)}}
	}
	if conf.Blocked {
		return sys, free, nil // asking for the image returns the error again
	}
	sources, err := conf.PullSourcesFromReference(named)
	if err != nil {
		return nil, free, fmt.Errorf("registries.conf: %w", err)
	}
	out := map[string]error{} // the hosts that are left out, with the reason
	var mu sync.Mutex
	var work sync.WaitGroup
	for _, source := range sources {
		host := reference.Domain(source.Reference)
		if host == reference.Domain(named) && (typed || host == dockerHub) {
			continue
		}
		insecure := source.Endpoint.Insecure || sys.DockerInsecureSkipTLSVerify == types.OptionalBoolTrue
		work.Go(func() {
			if err := ofNode(ctx, host, insecure); err != nil {
				mu.Lock()
				defer mu.Unlock()
				out[host] = err
			}
		})
	}
	work.Wait()
	host := reference.Domain(sources[len(sources)-1].Reference) // the host of the registry itself
	switch err := out[host]; {
	case len(out) == 0:
		return sys, free, nil
	case errors.Is(err, errNodeMirror):
		return nil, free, errkind.Errorf("registry-mirror", "registries.conf says to ask %s: %w", host, err)
	case err != nil:
		return nil, free, fmt.Errorf("registries.conf says to ask %s: %w", host, err)
	}
	left := *conf
	left.Mirrors = slices.DeleteFunc(slices.Clone(conf.Mirrors), func(m sysregistriesv2.Endpoint) bool {
		host, _, _ := strings.Cut(m.Location, "/")
		return out[host] != nil
	})
	return onlyRegistry(sys, left)
}

// onlyRegistry returns sys with a registries.conf that has only this registry. It writes a file, because the library
// reads nothing else.
func onlyRegistry(sys *types.SystemContext, registry sysregistriesv2.Registry) (_ *types.SystemContext, free func(), err error) {
	free = func() {}
	helpers, err := sysregistriesv2.CredentialHelpers(sys)
	if err != nil {
		return nil, free, fmt.Errorf("registries.conf: %w", err)
	}
	text, err := toml.Marshal(map[string]any{"credential-helpers": helpers, "registry": []sysregistriesv2.Registry{registry}})
	if err != nil {
		return nil, free, fmt.Errorf("registries.conf: %w", err)
	}
	dir, err := os.MkdirTemp("", "dolly-img-registries-")
	if err != nil {
		return nil, free, err
	}
	free = func() { os.RemoveAll(dir) }
	only := *sys
	only.SystemRegistriesConfPath, only.SystemRegistriesConfDirPath = filepath.Join(dir, "registries.conf"), filepath.Join(dir, "none")
	return &only, free, os.WriteFile(only.SystemRegistriesConfPath, text, 0o600)
}

// ofNode asks host whether it is the mirror of a node, and returns errNodeMirror if it is. If a host that may be asked
// without TLS does not answer, it may be one, so that is an error, too.
func ofNode(ctx context.Context, host string, insecure bool) (err error) {
	client := &http.Client{
		Timeout: probeLimit,
		// The certificate is not checked: no secret is sent, and the answer can only make us not ask there.
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	schemes := []string{"https"}
	if insecure {
		schemes = append(schemes, "http")
	}
	for _, scheme := range schemes {
		var req *http.Request
		if req, err = http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+host+"/v2/", nil); err != nil {
			return err
		}
		resp, failed := client.Do(req)
		if failed != nil {
			err = failed
			continue
		}
		resp.Body.Close()
		if resp.Header.Get(nodeMirror) != "" {
			return errNodeMirror
		}
		return nil
	}
	if !insecure { // no mirror of a node has TLS; asking for the image will say what is wrong here
		return nil
	}
	return err
}
