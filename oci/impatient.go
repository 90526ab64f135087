package oci

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// A LimitError says that a registry does not want to be asked so often (429).
type LimitError struct {
	// After is for how long it does not want to be asked. 0 is that it does not say.
	After time.Duration
}

func (e *LimitError) Error() string {
	if e.After == 0 {
		return "the registry does not want to be asked so often (429)"
	}
	return "the registry does not want to be asked for " + e.After.String() + " (429)"
}

// RetryAfter returns After.
func (e *LimitError) RetryAfter() time.Duration { return e.After }

// Kind returns the kind of the error.
func (e *LimitError) Kind() (errkind.Kind, []string) { return "registry-limit", nil }

// Impatient calls f, which asks registries in this goroutine with the context that it is given. Each request is made once: who asks
// every few minutes does not ask again at once. It is given less time, too. If a registry answers 429, the context ends, and the error is a *LimitError.
func Impatient(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, impatience{}, true))
	defer cancel(nil)
	defer limits.watch(cancel)()
	err := f(ctx)
	if limit := (*LimitError)(nil); err != nil && errors.As(context.Cause(ctx), &limit) {
		return limit
	}
	return err
}

// impatience is the key of a context that is that of Impatient.
type impatience struct{}

func isImpatient(ctx context.Context) bool { return ctx.Value(impatience{}) != nil }

// limitHook finds out that a registry has answered 429. The library waits then and asks again, up to 60 s and up to 4 times, and gives
// nobody the header Retry-After. But it says in its log what it is about to do, in the goroutine that asks.
type limitHook struct {
	mu   sync.Mutex
	asks map[string]*impatientAsk // by goroutine
}

type impatientAsk struct {
	after  time.Duration
	cancel context.CancelCauseFunc
}

var limits = &limitHook{asks: map[string]*impatientAsk{}}

// watch has cancel called when a registry answers 429 to this goroutine. It does so until the function that it returns is called.
func (h *limitHook) watch(cancel context.CancelCauseFunc) (end func()) {
	id := goroutine()
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.asks[id]
	h.asks[id] = &impatientAsk{cancel: cancel}
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.asks[id] = before; before == nil {
			delete(h.asks, id)
		}
	}
}

// Levels returns the level at which the library says it.
func (h *limitHook) Levels() []logrus.Level { return []logrus.Level{logrus.DebugLevel} }

// Fire is called for each line of the library's log.
func (h *limitHook) Fire(e *logrus.Entry) error {
	header, named := strings.CutPrefix(e.Message, "Detected 'Retry-After' header ")
	if !named && !strings.HasPrefix(e.Message, "Too many requests to ") {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch a := h.asks[goroutine()]; {
	case a == nil:
	case named:
		a.after = retryAfter(header)
	default:
		a.cancel(&LimitError{a.after})
	}
	return nil
}

const longestWait = 30 * 24 * time.Hour // nothing says more in earnest

// retryAfter reads the header in quotes: seconds, or a time. It returns 0 if it is neither.
func retryAfter(quoted string) time.Duration {
	header, err := strconv.Unquote(quoted)
	if err != nil {
		return 0
	}
	if n, err := strconv.ParseInt(header, 10, 64); err == nil {
		return time.Duration(max(0, min(n, int64(longestWait/time.Second)))) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, min(time.Until(at).Round(time.Second), longestWait))
	}
	return 0
}

// goroutine returns the number of the goroutine that calls it.
func goroutine() string {
	head := make([]byte, 64) // goroutine 123 [running]:
	fields := strings.Fields(string(head[:runtime.Stack(head, false)]))
	if len(fields) < 2 {
		return ""
	}
	return fields[1]
}
