package mirror

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
)

// Whoever starts an image uses it: another one makes room.
func TestServingIsUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := cache.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		for tag, content := range map[string]string{"older": "a", "old": "b"} {
			_, root := putApp(t, c, "reg.example/app:"+tag, content)
			at := time.Now().Add(-time.Duration(len(tag)) * time.Hour)
			used := filepath.Join(c.Dir(), "used", strings.Replace(root.Digest.String(), ":", "-", 1))
			if err := os.Chtimes(used, at, at); err != nil {
				t.Fatal(err)
			}
		}
		if code := get(New(c, nil, nil), "/v2/app/manifests/older?ns=reg.example"); code != 200 {
			t.Fatal(code)
		}
		time.Sleep(holdFor + time.Second)
		res, err := c.GC(t.Context(), cache.GCOptions{Limits: cache.Limits{Max: 15_000}})
		if err != nil || fmt.Sprint(res.Images) != "[reg.example/app:old]" {
			t.Errorf("evicted %v, %v", res.Images, err)
		}
	})
}

// Who has the manifest gets what it names, though the tag has moved and the image is removed
// meanwhile; until a minute after the last request.
func TestServedStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := cache.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		moved, first := putApp(t, c, "reg.example/app:v1", "a")
		gone, _ := putApp(t, c, "reg.example/app:v2", "b")
		m := New(c, nil, nil)
		is := func(path string, want int) {
			t.Helper()
			if code := get(m, "/v2/"+path+"?ns=reg.example"); code != want {
				t.Errorf("%s: %d, want %d", path, code, want)
			}
		}
		is("app/manifests/v1", 200)
		is("app/manifests/v2", 200)
		putApp(t, c, "reg.example/app:v1", "c")
		if _, err := c.Remove(t.Context(), "reg.example/app:v2"); err != nil {
			t.Fatal(err)
		}
		const never = math.MinInt64 // fresh: the files' times are not those of the bubble
		for range 3 {
			res, err := c.GC(t.Context(), cache.GCOptions{Grace: never, Limits: cache.Limits{Max: 10_500}})
			if err != nil || res.Blobs > 3 { // those of v1 that nobody has asked for
				t.Fatalf("%+v, %v", res, err)
			}
			is("app/manifests/"+first.Digest.String(), 200)
			is("app/blobs/"+moved.Digest.String(), 200)
			is("app/blobs/"+gone.Digest.String(), 200)
			is("app/manifests/v1", 404)
			is("app/manifests/v2", 404)
			is("other/blobs/"+gone.Digest.String(), 404)
			time.Sleep(holdFor - time.Second)
		}
		time.Sleep(2 * time.Second)
		if res, err := c.GC(t.Context(), cache.GCOptions{Grace: never}); err != nil || res.Blobs != 6 {
			t.Errorf("%+v, %v", res, err)
		}
		is("app/blobs/"+moved.Digest.String(), 404)
		if left, err := os.ReadDir(filepath.Join(c.Dir(), "holds")); err != nil || len(left) > 0 {
			t.Errorf("%v, %v", left, err)
		}
	})
}

// Whoever asks for the manifest of each image does not keep a push out that needs the room. An image that is being
// pulled stays until the last byte of its blobs was asked for. That is so whichever process of the cache receives the push.
func TestHoldsYield(t *testing.T) {
	for _, process := range []string{"of the mirror", "another one"} {
		t.Run("process "+process, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testHoldsYield(t, process == "another one") })
		})
	}
}

func testHoldsYield(t *testing.T, another bool) {
	c, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	layers, roots := map[string]v1.Descriptor{}, map[string]v1.Descriptor{}
	for i, tag := range []string{"a", "b", "c"} {
		layers[tag], roots[tag] = putApp(t, c, "reg.example/app:"+tag, tag)
		at := time.Now().Add(time.Duration(i-10) * time.Minute)
		if err := os.Chtimes(filepath.Join(c.Dir(), "used", strings.Replace(roots[tag].Digest.String(), ":", "-", 1)), at, at); err != nil {
			t.Fatal(err)
		}
	}
	m := New(c, nil, nil)
	if another {
		if c, err = cache.Open(c.Dir()); err != nil {
			t.Fatal(err)
		}
	}
	c.SetLimits(cache.Limits{Max: 32_000}) // as much as the three have
	is := func(path string, want int) {
		t.Helper()
		if code := get(m, "/v2/app/"+path+"?ns=reg.example"); code != want {
			t.Errorf("%s: %d, want %d", path, code, want)
		}
	}
	config := digest.FromString(`{"x":"a"}`)
	for _, tag := range []string{"a", "b", "c"} {
		is("manifests/"+tag, 200)
	}
	is("blobs/"+config.String(), 200)
	putApp(t, c, "reg.example/new:1", "d")
	putApp(t, c, "reg.example/new:2", "e")
	is("manifests/b", 404)
	is("manifests/c", 404)
	tr := c.Transfer("reg.example/new:3", cache.TransferOptions{})
	big := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromString("big"), Size: 31_000}
	if _, _, err := tr.Offer(t.Context(), []v1.Descriptor{big}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("beside an image that is being pulled: %v", err)
	}
	is("blobs/"+layers["a"].Digest.String(), 200)
	if _, _, err := tr.Offer(t.Context(), []v1.Descriptor{big}); err != nil {
		t.Errorf("after its last byte was asked for: %v", err)
	}
	tr.Close()
	time.Sleep(holdFor + time.Second)
}

// However many images are being pulled, all but the last few make room.
func TestFewPullsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := cache.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		m := New(c, nil, nil)
		for i := range 8 {
			tag := string(rune('a' + i))
			putApp(t, c, "reg.example/app"+tag+":1", tag)
			if code := get(m, "/v2/app"+tag+"/manifests/1?ns=reg.example"); code != 200 {
				t.Fatal(code)
			}
			if code := get(m, "/v2/app"+tag+"/blobs/"+digest.FromString(`{"x":"`+tag+`"}`).String()+"?ns=reg.example"); code != 200 {
				t.Fatal(code)
			}
			time.Sleep(time.Second)
		}
		c.SetLimits(cache.Limits{Max: 86_000})
		for want, size := range map[error]int64{nil: 40_000, syscall.ENOSPC: 50_000} {
			tr := c.Transfer("reg.example/new:1", cache.TransferOptions{})
			_, _, err := tr.Offer(t.Context(), []v1.Descriptor{{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromString("big"), Size: size}})
			if !errors.Is(err, want) {
				t.Errorf("%d bytes: %v, want %v", size, err, want)
			}
			tr.Close()
		}
		time.Sleep(holdFor + time.Second)
	})
}
