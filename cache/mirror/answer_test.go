package mirror

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// A page whose own name was made to lead to the mirror cannot read it; the Hosts that runtimes send are answered.
func TestHosts(t *testing.T) {
	c, _, _, _ := fill(t)
	m := Named(New(c, nil, nil), "node7", "Cache.example")
	for host, want := range map[string]int{
		"127.0.0.1:5050": 200, "127.0.0.1": 200, "[::1]:5050": 200, "[fd00::1]": 200, "10.1.2.3:5050": 200,
		"localhost:5050": 200, "LOCALHOST": 200, "node7:5050": 200, "cache.example": 200,
		"evil.example:5050": 421, "evil.example": 421, "node7.evil.example:5050": 421, "localhost.evil.example": 421, "": 421, "127.0.0.1.evil.example": 421,
		"reg.example:5000": 421,
	} {
		for _, path := range []string{"/v2/", "/v2/lab/app/manifests/v1?ns=reg.example:5000", "/v2/reg.example_5000/lab/app/manifests/v1"} {
			w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil)
			r.Host = host
			m.ServeHTTP(w, r)
			if w.Code != want {
				t.Errorf("%q %s: %d, want %d: %s", host, path, w.Code, want, w.Body)
			}
			if w.Header().Get(Header) != "1" {
				t.Errorf("%q: not known as a mirror", host)
			}
		}
	}
}
