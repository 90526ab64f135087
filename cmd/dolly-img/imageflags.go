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
	fl.StringVar(&f.platform, "platform", "", "of an image for several platforms, push the one for `OS/ARCH[/VARIANT]` (default linux and the architecture of this machine; of several variants, the best that all nodes say they run, else the lowest)")
	fl.BoolVar(&f.all, "all-platforms", false, "push all platforms of an image that has several")
	fl.StringVar(&f.authFile, "authfile", "", "`FILE` with the logins of registries (default $REGISTRY_AUTH_FILE, then the user's auth.json)")
	fl.StringVar(&f.creds, "creds", "", "`FILE` with one line USER:PASSWORD for the registry; - asks for it on a terminal, or reads the line from a pipe")
	fl.StringVar(&f.certDir, "cert-dir", "", "`DIR` with the certificates of the registry (default /etc/containers/certs.d)")
	fl.BoolVar(&f.tlsVerify, "tls-verify", true, "check the registry's certificate; --tls-verify=false also allows a registry without TLS")
	fl.BoolVar(&f.checkLayers, "check-layers", false, "unpack compressed layers while they are sent, and compare them with the image's config (this is always done for docker save archives)")
	fl.BoolVar(&f.noCache, "no-cache", false, "keep nothing of a registry's image on this server, and pull again what is needed again")
	fl.StringVar(&f.cache, "cache", "", "`DIR` of this server's own cache, which keeps what is pulled (default as for the daemon)")
}

// options checks the flags for the image arg, and reads the credentials if there are any.
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

// credentials reads the user and the password from a file that only its owner can read, or from standard input.
// They are never taken from the command line, which everybody on the machine can see.
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

// oneLine reads the line USER:PASSWORD from in, which errors call what.
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

// ask asks for user and password if in is a terminal, and does not show the password. From anything else it reads
// one line.
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

// readLine reads one line, which the end of in may end, too.
func readLine(in io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(in, 64<<10)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}
