package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
	"github.com/dolly-img/dolly-img/oci"
)

// imageFlags say where an image comes from and which of it is meant.
type imageFlags struct {
	platform    string
	all         bool
	authFile    string
	creds       string
	certDir     string
	tlsVerify   bool
	noCache     bool
	checkLayers bool
	cache       string
}

func (f *imageFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.platform, "platform", "", "take the image for `OS/ARCH[/VARIANT]` from an index of several (default linux and the architecture of this machine; of several variants push takes the best that all nodes say they run, else the lowest)")
	fl.BoolVar(&f.all, "all-platforms", false, "push all platforms of an image that has several")
	fl.StringVar(&f.authFile, "authfile", "", "`FILE` with the logins of registries (default $REGISTRY_AUTH_FILE, then the user's auth.json)")
	fl.StringVar(&f.creds, "creds", "", "`FILE` with one line USER:PASSWORD for the registry, or - to be asked for it, or to read the line from a pipe")
	fl.StringVar(&f.certDir, "cert-dir", "", "`DIR` with the certificates of the registry (default /etc/containers/certs.d)")
	fl.BoolVar(&f.tlsVerify, "tls-verify", true, "check the registry's certificate; with =false a registry without TLS is taken, too")
	fl.BoolVar(&f.checkLayers, "check-layers", false, "unpack compressed layers and compare them with the image's config while it is sent (those of docker save archives always are)")
	fl.BoolVar(&f.noCache, "no-cache", false, "keep nothing of a registry's image on this server; what is needed again is pulled again")
	fl.StringVar(&f.cache, "cache", "", "`DIR` of this server's own cache for what is pulled (default as for the daemon)")
}

// options reads the flags for an image, and the credentials where they are asked for.
func (f *imageFlags) options(cmd *cobra.Command, arg string) (oci.Options, error) {
	o := oci.Options{Platform: f.platform, AllPlatforms: f.all,
		Registry: oci.RegistryOptions{AuthFile: f.authFile, CertDir: f.certDir}}
	if f.all && f.platform != "" {
		return o, usagef("--platform and --all-platforms: only one of them")
	}
	if cmd.Flags().Changed("tls-verify") {
		o.Registry.TLSVerify = &f.tlsVerify
	}
	for _, flag := range []struct{ name, path string }{{"cert-dir", f.certDir}, {"authfile", f.authFile}} {
		if flag.path != "" {
			if _, err := os.Stat(flag.path); err != nil {
				return o, usagef("--%s: %w", flag.name, err)
			}
		}
	}
	if f.creds != "" {
		if !image.OfRegistry(arg) {
			return o, usagef("--creds is for docker:// and oras:// only")
		}
		user, password, err := f.credentials(cmd)
		if err != nil {
			return o, &usageError{err: fmt.Errorf("--creds: %w", err)}
		}
		o.Registry.User, o.Registry.Password = user, password
	}
	return o, nil
}

// credentials come from a file that only its owner reads, or from the terminal: never from
// the command line, which everybody on the machine sees.
func (f *imageFlags) credentials(cmd *cobra.Command) (user, password string, err error) {
	if f.creds == "-" {
		return ask(cmd.InOrStdin(), cmd.ErrOrStderr())
	}
	file, err := os.Open(f.creds)
	if err != nil {
		if strings.ContainsRune(f.creds, ':') {
			return "", "", hintf("write it into a file of mode 0600 and name that", "what is on the command line everybody can see")
		}
		return "", "", err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", "", hintf("chmod 600 "+f.creds, "%s can be read by others", f.creds)
	}
	return oneLine(file, f.creds)
}

// oneLine reads USER:PASSWORD.
func oneLine(in io.Reader, what string) (user, password string, err error) {
	line, err := readLine(in)
	if err != nil {
		return "", "", err
	}
	user, password, ok := strings.Cut(line, ":")
	if !ok || user == "" {
		return "", "", fmt.Errorf("%s: want one line USER:PASSWORD", what)
	}
	return user, password, nil
}

// ask reads the credentials from a terminal, the password unseen, or as one line from what is
// none.
func ask(in io.Reader, out io.Writer) (user, password string, err error) {
	file, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return oneLine(in, "standard input")
	}
	fmt.Fprint(out, "user: ")
	if user, err = readLine(in); err != nil {
		return "", "", err
	}
	if user == "" {
		return "", "", errors.New("no user was entered")
	}
	fmt.Fprint(out, "password: ")
	b, err := term.ReadPassword(int(file.Fd()))
	fmt.Fprintln(out)
	return user, string(b), err
}

// readLine reads up to the first line's end, or the end.
func readLine(in io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(in, 64<<10)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}
