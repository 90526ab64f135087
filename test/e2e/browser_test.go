package e2e

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

var screens = flag.String("screens", "", "leave the pictures of pages in this directory, for a person to look at")

// browser is a tab of Debian's chromium, which has no window. What the page must not do fails the test: log an error, throw one, or ask
// anything of another server.
type browser struct {
	t   *testing.T
	ctx context.Context
	dir string // of pictures

	mu     sync.Mutex
	origin string
	wrong  []string
}

const chromium = "chromium"

func newBrowser(t *testing.T, ctx context.Context) *browser {
	t.Helper()
	b := &browser{t: t, dir: *screens}
	if b.dir == "" {
		b.dir = t.ArtifactDir()
	}
	// There is no sandbox for root, and the page is our own.
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.Flag("disable-gpu", true))
	ctx, cancel := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	b.ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b.do() // it starts
	for _, err := range []error{
		chromedp.Listen(b.ctx, b.hear), enable(b.ctx, network.Enable, network.EnableParams{}), enable(b.ctx, log.Enable, cdp.Empty{}), enable(b.ctx, runtime.Enable, cdp.Empty{}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, w := range b.wrong {
			t.Error("the page:", w)
		}
	})
	return b
}

func enable[P, R any](ctx context.Context, command cdp.Command[P, R], params P) error {
	_, err := chromedp.Call(ctx, command, params)
	return err
}

func (b *browser) hear(ev any) {
	wrong := ""
	switch ev := ev.(type) {
	case *runtime.EventExceptionThrown:
		wrong = fmt.Sprintf("%s: %+v", ev.ExceptionDetails.Text, ev.ExceptionDetails.Exception)
	case *runtime.EventConsoleAPICalled:
		wrong = fmt.Sprintf("console: %s %v", ev.Type, ev.Args)
	case *log.EventEntryAdded:
		wrong = fmt.Sprintf("log: %s %s", ev.Entry.Level, ev.Entry.Text)
	case *network.EventRequestWillBeSent:
		b.mu.Lock()
		u, err := url.Parse(ev.Request.URL)
		if err != nil || u.Scheme+"://"+u.Host != b.origin {
			wrong = "asks for " + ev.Request.URL
		}
		b.mu.Unlock()
	}
	if wrong != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.wrong = append(b.wrong, wrong)
	}
}

func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// open opens a page.
func (b *browser) open(address string) {
	b.t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		b.t.Fatal(err)
	}
	b.mu.Lock()
	b.origin = u.Scheme + "://" + u.Host
	b.mu.Unlock()
	b.do(chromedp.Navigate(address))
}

// until waits until an expression of the page is true.
func (b *browser) until(what, expression string) {
	b.t.Helper()
	_, err := chromedp.Run(b.ctx, chromedp.Poll[bool](expression, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(30*time.Second)))
	if err != nil {
		b.t.Fatalf("%s: %v: the page reads\n%s", what, err, b.text(`document.body.innerText`))
	}
}

// text is what an expression of the page is, as a string.
func (b *browser) text(expression string) string { return evaluate[string](b, expression) }

func evaluate[T any](b *browser, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// picture leaves one of the whole page, so wide, in a colour scheme. None may be wider than the window.
func (b *browser) picture(name string, width int64, scheme string) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(width, 800))
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}
	if err := enable(b.ctx, emulation.SetEmulatedMedia, media); err != nil {
		b.t.Fatal(err)
	}
	if over := evaluate[int](b, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); over > 0 {
		b.t.Errorf("%s: the page is %d pixels wider than the window", name, over)
	}
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(b.dir, name+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}
