package identity

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// InitOptions says what Init makes. The zero value is good.
type InitOptions struct {
	// Cluster is the name of the cluster. "" is the name that the authority has, or a random
	// short name for a new one.
	Cluster string
	// Sender is the name of the sender. "" is this host's name.
	Sender string
	// Nodes has the nodes, without a port, that get a certificate with their name.
	Nodes []string
	// Validity is how long certificates are good from now on. 0 is five years.
	Validity time.Duration
	// Now is the time. Zero is the present.
	Now time.Time
}

const (
	day             = 24 * time.Hour
	backdate        = day // for hosts whose clock is behind
	defaultValidity = 5 * 365 * day
	caValidity      = 10 * 365 * day
)

// Init makes keys in dir. It makes the directory if there is none.
//
// If there is no authority, Init makes one, with sender.pem, node.pem, warmer.pem, viewer.pem, and a node-NAME.pem for
// each of opts.Nodes. If ca.pem and ca.key are there, Init signs with that authority. It then makes
// only the files of opts.Nodes or, if there are no such nodes, those of the four others that
// are missing. (Remove one of them to get it anew.)
//
// Init never replaces a file. A *KeyError with the Problem Exists names the first file that is in
// the way. After an error nothing new is left.
func Init(dir string, opts InitOptions) (err error) {
	if err := opts.defaults(); err != nil {
		return err
	}
	if opts.Sender == "" {
		opts.Sender = "sender"
		if host, err := os.Hostname(); err == nil && checkName(host) == nil {
			opts.Sender = host
		}
	}
	for _, name := range append([]string{opts.Sender}, opts.Nodes...) {
		if err := checkName(name); err != nil {
			return err
		}
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				os.Remove(dir)
			}
		}()
	}
	files, err := opts.files(dir)
	if err != nil {
		return err
	}
	if _, err := loadIssued(dir); err != nil {
		return err
	}
	if err := place(dir, files); err != nil {
		return err
	}
	return record(dir)
}

// defaults fills in the fields that are not set.
func (o *InitOptions) defaults() error {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	if o.Validity == 0 {
		o.Validity = defaultValidity
	}
	if o.Validity < 0 {
		return fmt.Errorf("validity %v: negative", o.Validity)
	}
	return nil
}

// newFile is a file that is about to be made.
type newFile struct {
	name string
	mode fs.FileMode
	data []byte
}

// files makes the contents of all files that Init writes.
func (o *InitOptions) files(dir string) ([]newFile, error) {
	exists := func(name string) bool {
		_, err := os.Lstat(filepath.Join(dir, name))
		return err == nil
	}
	var files []newFile
	var a *ca
	var err error
	names := map[string]Peer{}
	if !exists(caFile) {
		if o.Cluster == "" {
			o.Cluster = strings.ToLower(rand.Text()[:8])
		}
		if a, err = o.newCA(); err != nil {
			return nil, err
		}
		files = append(files, newFile{caFile, 0o644, certPEM(a.cert.Raw)}, newFile{caKeyFile, 0o600, a.keyPEM})
		names = o.common()
	} else {
		if !exists(caKeyFile) && len(o.Nodes) == 0 {
			return nil, inTheWay(dir, caFile)
		}
		if a, err = o.loadCA(dir); err != nil {
			return nil, err
		}
		if len(o.Nodes) == 0 {
			names = o.common()
			maps.DeleteFunc(names, func(name string, _ Peer) bool { return exists(name) })
			if len(names) == 0 {
				return nil, inTheWay(dir, caFile)
			}
		}
	}
	issued, err := o.issueAll(a, dir, names)
	if err != nil {
		return nil, err
	}
	files = append(files, issued...)
	for _, f := range files {
		if exists(f.name) {
			return nil, inTheWay(dir, f.name)
		}
	}
	return files, nil
}

// common returns for whom the files are that every cluster has. A warmer and a viewer have their roles for names, so that
// the name of the sender means one key.
func (o *InitOptions) common() map[string]Peer {
	return map[string]Peer{
		senderFile: {Role: Sender, Name: o.Sender}, nodeFile: {Role: Node},
		warmerFile: {Role: Warmer, Name: string(Warmer)}, viewerFile: {Role: Viewer, Name: string(Viewer)},
	}
}

// issueAll makes the contents of the files that every cluster has, for the peers that names has for them, and of the
// files of o.Nodes.
func (o *InitOptions) issueAll(a *ca, dir string, names map[string]Peer) ([]newFile, error) {
	list, err := loadRevoked(dir)
	if err != nil {
		return nil, err
	}
	var files []newFile
	order := []string{senderFile, nodeFile, warmerFile, viewerFile}
	for _, node := range o.Nodes {
		if _, twice := names[namedFile(Node, node)]; !twice {
			order = append(order, namedFile(Node, node))
		}
		names[namedFile(Node, node)] = Peer{Role: Node, Name: node}
	}
	for _, name := range order {
		peer, ok := names[name]
		if !ok {
			continue
		}
		peer.Cluster = o.Cluster
		if err := list.forbids(peer, errkind.Kind("name-revoked"), ""); err != nil {
			return nil, err
		}
		data, err := o.issue(a, peer)
		if err != nil {
			return nil, err
		}
		files = append(files, newFile{name, 0o600, data})
	}
	return files, nil
}

func inTheWay(dir, name string) error {
	return &KeyError{File: filepath.Join(dir, name), Problem: Exists,
		kind: errkind.Kind("keys-exist")}
}

// place writes files under their names and replaces none. Each is complete and durable
// under a temporary name before the first of them appears.
func place(dir string, files []newFile) (err error) {
	var made []string
	defer func() {
		if err != nil {
			for _, path := range made {
				os.Remove(path)
			}
		}
	}()
	temps := make([]string, len(files))
	for i, f := range files {
		temp, err := writeTemp(dir, f)
		if err != nil {
			return err
		}
		defer os.Remove(temp)
		temps[i] = temp
	}
	for i, f := range files {
		path := filepath.Join(dir, f.name)
		if err := os.Link(temps[i], path); errors.Is(err, fs.ErrExist) {
			return inTheWay(dir, f.name)
		} else if err != nil {
			return err
		}
		made = append(made, path)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func writeTemp(dir string, f newFile) (path string, err error) {
	temp, err := os.CreateTemp(dir, "."+f.name+".*") // made with O_EXCL and mode 0600
	if err != nil {
		return "", err
	}
	defer func() {
		if err = errors.Join(err, temp.Close()); err != nil {
			os.Remove(temp.Name())
		}
	}()
	if _, err := temp.Write(f.data); err != nil {
		return "", err
	}
	if err := temp.Chmod(f.mode); err != nil {
		return "", err
	}
	return temp.Name(), temp.Sync()
}

// ca is an authority that can sign.
type ca struct {
	cert   *x509.Certificate
	key    crypto.Signer
	keyPEM []byte // nil if the authority was there before
}

func (o *InitOptions) newCA() (*ca, error) {
	if err := checkCluster(o.Cluster); err != nil {
		return nil, err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	template := o.template(Peer{Role: authority, Cluster: o.Cluster})
	template.NotAfter = o.Now.Add(max(o.Validity, caValidity))
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	encoded, err := keyPEM(key)
	return &ca{cert, key, encoded}, err
}

// loadCA reads ca.key, and from ca.pem the certificate that it belongs to, which must not have ended.
func (o *InitOptions) loadCA(dir string) (*ca, error) {
	certs, err := readCA(dir)
	if err != nil {
		return nil, err
	}
	a, err := o.readCAKey(dir, certs)
	if err == nil && o.Now.After(a.cert.NotAfter) {
		err = &KeyError{File: certs.path, Problem: Expired, Detail: "on " + a.cert.NotAfter.UTC().Format(time.DateOnly),
			kind: errkind.Kind("authority-ended")}
	}
	return a, err
}

// readCAKey does the same for an authority that may have ended.
func (o *InitOptions) readCAKey(dir string, certs *keyFile) (*ca, error) {
	key, err := read(dir, caKeyFile)
	if err != nil {
		return nil, err
	}
	if key.key == nil {
		return nil, &KeyError{File: key.path, Problem: Malformed, Detail: "no private key"}
	}
	cert := signer(certs.certs, key.key)
	if cert == nil {
		return nil, &KeyError{File: key.path, Problem: WrongKey, Detail: "it is the key of no certificate in ca.pem"}
	}
	peer, err := certPeer(cert)
	switch {
	case err != nil:
		return nil, &KeyError{File: certs.path, Problem: Malformed, Err: err}
	case o.Cluster != "" && o.Cluster != peer.Cluster:
		return nil, fmt.Errorf("cluster %q: the authority in %s is of cluster %q", o.Cluster, certs.path, peer.Cluster)
	}
	o.Cluster = peer.Cluster
	return &ca{cert: cert, key: key.key}, nil
}

// signer returns the certificate to which key belongs, or nil.
func signer(certs []*x509.Certificate, key crypto.Signer) *x509.Certificate {
	for _, cert := range certs {
		if belongs(key, cert) {
			return cert
		}
	}
	return nil
}

// issue returns a certificate and a key for peer as PEM. The certificate of a node is good for both ends of a connection, all others
// for a client only.
func (o *InitOptions) issue(a *ca, peer Peer) ([]byte, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	template := o.template(peer)
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if peer.Role == Node {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	encoded, err := keyPEM(key)
	return bytes.Join([][]byte{certPEM(der), encoded}, nil), err
}

func (o *InitOptions) template(peer Peer) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)),
		Subject:      pkix.Name{CommonName: strings.TrimSpace(fmt.Sprintf("dolly-img %s %s %s", peer.Cluster, peer.Role, peer.Name))},
		URIs:         []*url.URL{peer.uri()},
		NotBefore:    o.Now.Add(-backdate),
		NotAfter:     o.Now.Add(o.Validity),
	}
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
