package identity

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// Names of the files in a directory of keys.
const (
	caFile      = "ca.pem"
	caKeyFile   = "ca.key"
	senderFile  = "sender.pem"
	nodeFile    = "node.pem"
	warmerFile  = "warmer.pem"
	viewerFile  = "viewer.pem"
	policyFile  = "policy.toml"
	revokedFile = "revoked"
	issuedFile  = "issued"
)

func namedPrefix(role Role) string { return string(role) + "-" }

func namedFile(role Role, name string) string { return namedPrefix(role) + name + ".pem" }

func roleFile(role Role) string { return string(role) + ".pem" }

// maxFile bounds each file that is read, in bytes.
const maxFile = 1 << 20

// systemDir is where keys are looked for after the environment; a test sets it.
var systemDir = "/etc/dolly-img/keys"

// Find returns the directory of keys to use: explicit if it is not "", else
// $DOLLY_IMG_KEYS if that is set, else /etc/dolly-img/keys or dolly-img/keys below
// the user's configuration directory, whichever first holds a ca.pem. The error is a
// *NotFoundError that lists the places.
func Find(explicit string) (string, error) {
	places := []string{explicit}
	if explicit == "" {
		places = []string{os.Getenv("DOLLY_IMG_KEYS")}
	}
	if places[0] == "" {
		places[0] = systemDir
		if config, err := os.UserConfigDir(); err == nil {
			places = append(places, filepath.Join(config, "dolly-img", "keys"))
		}
	}
	denied := false
	for i, dir := range places {
		_, err := os.Stat(filepath.Join(dir, caFile))
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			places[i] += " (" + errors.Unwrap(err).Error() + ")"
			denied = denied || errors.Is(err, fs.ErrPermission)
		}
	}
	return "", &NotFoundError{Places: places, denied: denied}
}

// keyFile is what a PEM file holds.
type keyFile struct {
	path string
	// certs begins with the holder's own certificate.
	certs []*x509.Certificate
	// key is nil where the file has no private key.
	key crypto.Signer
}

// read reads a PEM file. If it has a private key, group and others may have no access to it.
func read(dir, name string) (*keyFile, error) {
	path := filepath.Join(dir, name)
	data, info, err := readFile(path)
	if err != nil {
		return nil, err
	}
	file, err := decode(data)
	if err != nil {
		return nil, &KeyError{File: path, Problem: Malformed, Err: err}
	}
	file.path = path
	if file.key != nil && info.Mode().Perm()&0o077 != 0 {
		return file, &KeyError{File: path, Problem: TooOpen, Detail: "mode " + info.Mode().Perm().String(),
			kind: errkind.Kind("key-open"), about: path}
	}
	return file, nil
}

// readFile reads a file of up to maxFile bytes. Every error is a *KeyError.
func readFile(path string) ([]byte, fs.FileInfo, error) { return readBounded(path, maxFile) }

func readBounded(path string, limit int64) ([]byte, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		problem, kind := Unreadable, errkind.Kind("")
		if errors.Is(err, fs.ErrNotExist) {
			problem, kind = Missing, missing[filepath.Base(path)]
		} else if errors.Is(err, fs.ErrPermission) {
			kind = errkind.Kind("key-denied")
		}
		return nil, nil, &KeyError{File: path, Problem: problem, Err: errors.Unwrap(err), kind: kind}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, &KeyError{File: path, Problem: Unreadable, Err: err}
	}
	if !info.Mode().IsRegular() {
		return nil, nil, &KeyError{File: path, Problem: Unreadable, Detail: "not a regular file"}
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, nil, &KeyError{File: path, Problem: Unreadable, Err: err}
	}
	if int64(len(data)) > limit {
		return nil, nil, &KeyError{File: path, Problem: Malformed, Detail: fmt.Sprintf("larger than %d MiB", limit>>20)}
	}
	return data, info, nil
}

// missing has the kind of error for each file that is not there, or is another one's; the advice says where it comes from.
var missing = map[string]errkind.Kind{
	caFile:     errkind.Kind("no-ca"),
	caKeyFile:  errkind.Kind("no-ca-key"),
	nodeFile:   errkind.Kind("no-node-key"),
	senderFile: errkind.Kind("no-sender-key"),
	warmerFile: errkind.Kind("no-warmer-key"),
	viewerFile: errkind.Kind("no-viewer-key"),
}

// decode reads CERTIFICATE blocks and at most one private key.
func decode(data []byte) (*keyFile, error) {
	file := &keyFile{}
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		switch block.Type {
		case "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, err
			}
			file.certs = append(file.certs, cert)
		case "PRIVATE KEY", "EC PRIVATE KEY":
			key, err := parseKey(block)
			if err != nil {
				return nil, err
			}
			if file.key != nil {
				return nil, errors.New("more than one private key")
			}
			file.key = key
		default:
			return nil, errors.New("unexpected PEM block " + block.Type)
		}
	}
	if len(bytes.TrimSpace(data)) != 0 {
		return nil, errors.New("not PEM")
	}
	return file, nil
}

func parseKey(block *pem.Block) (crypto.Signer, error) {
	if block.Type == "EC PRIVATE KEY" {
		return x509.ParseECPrivateKey(block.Bytes)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("private key cannot sign")
	}
	return signer, nil
}

// belongs reports whether key is the private key of cert.
func belongs(key crypto.Signer, cert *x509.Certificate) bool {
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(cert.PublicKey)
}

// readCA reads ca.pem: one or more certificates of authorities.
func readCA(dir string) (*keyFile, error) {
	file, err := read(dir, caFile)
	if err != nil {
		return nil, err
	}
	if len(file.certs) == 0 {
		return nil, &KeyError{File: file.path, Problem: Malformed, Detail: "no certificate"}
	}
	for _, cert := range file.certs {
		if !cert.IsCA {
			return nil, &KeyError{File: file.path, Problem: WrongRole, Detail: "holds a certificate that is no authority"}
		}
	}
	return file, nil
}

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, cert := range certs {
		p.AddCert(cert)
	}
	return p
}

// check returns whose the certificate in the file of a node or sender is. The error says
// what is wrong with it at the time now. If ca is nil, the check leaves out who signed the certificate.
func (f *keyFile) check(role Role, ca *keyFile, now time.Time) (Peer, error) {
	fail := func(p Problem, detail string, cause error, kind errkind.Kind) error {
		return &KeyError{File: f.path, Problem: p, Detail: detail, Err: cause, kind: kind, about: filepath.Base(f.path)}
	}
	if len(f.certs) == 0 {
		return Peer{}, fail(Malformed, "no certificate", nil, "")
	}
	cert := f.certs[0]
	peer, err := certPeer(cert)
	switch {
	case err != nil:
		return peer, fail(Malformed, "", err, "")
	case peer.Role != role:
		return peer, fail(WrongRole, "it is a "+string(peer.Role)+"'s certificate, not a "+string(role)+"'s", nil, missing[roleFile(role)])
	case f.key == nil:
		return peer, fail(Malformed, "no private key", nil, "")
	case !belongs(f.key, cert):
		return peer, fail(WrongKey, "", nil, "")
	case now.After(cert.NotAfter):
		return peer, fail(Expired, "on "+cert.NotAfter.UTC().Format(time.RFC3339), nil, errkind.Kind("key-ended"))
	case now.Before(cert.NotBefore):
		return peer, fail(NotYetValid, "valid from "+cert.NotBefore.UTC().Format(time.RFC3339), nil, errkind.Kind("key-not-yet"))
	}
	if ca == nil {
		return peer, nil
	}
	_, err = cert.Verify(x509.VerifyOptions{Roots: pool(ca.certs), Intermediates: pool(f.certs[1:]), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{usage(role)}})
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return peer, &KeyError{File: ca.path, Problem: Expired, Err: err, kind: errkind.Kind("ca-ended")}
	case err != nil:
		return peer, fail(Foreign, "", err, errkind.Kind("key-foreign"))
	}
	return peer, nil
}

// usage returns the extended key usage that a certificate of the role must have.
func usage(role Role) x509.ExtKeyUsage {
	if role.calls() {
		return x509.ExtKeyUsageClientAuth
	}
	return x509.ExtKeyUsageServerAuth
}
