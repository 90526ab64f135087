package web

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
)

// mostViewers is how many may look at once.
const mostViewers = 16

// feed is what the page shows, and who looks. What is sent is encoded once for all viewers.
type feed struct {
	mu      sync.Mutex
	topics  []topic
	last    int // number of the newest chain
	viewers int
	over    bool
	changed chan struct{} // closed at the next change of what is shown, and when a viewer has gone
}

// topic is something that the page shows.
type topic interface {
	// events returns what a viewer is sent that has seen a state of it, and the number of the state that it has then.
	events(seen uint64) (events [][]byte, number uint64)
}

func newFeed() *feed { return &feed{changed: make(chan struct{})} }

// wake has all viewers look for what is new.
func (f *feed) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wakeLocked()
}

func (f *feed) wakeLocked() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// watched reports whether anybody looks.
func (f *feed) watched() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.viewers > 0
}

// enter takes a viewer, unless there are too many.
func (f *feed) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.viewers >= mostViewers {
		return false
	}
	f.viewers++
	return true
}

func (f *feed) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.viewers--
	f.wakeLocked()
}

// chain adds a chain.
func (f *feed) chain(title string) *Chain {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	c := &Chain{feed: f, id: f.last, title: title, ids: map[rowKey]int{}}
	f.topics = append(f.topics, c)
	return c
}

// add adds another topic.
func (f *feed) add(t topic) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.topics = append(f.topics, t)
}

func (f *feed) remove(t topic) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.topics = slices.DeleteFunc(f.topics, func(o topic) bool { return o == t })
	f.wakeLocked()
}

// end says that nothing more will come.
func (f *feed) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	f.wakeLocked()
}

// next returns what a viewer is sent that has seen states of topics, which it notes there. changed is closed when there is
// more, and over says that there will not be.
func (f *feed) next(seen map[topic]uint64) (events [][]byte, changed <-chan struct{}, over bool) {
	f.mu.Lock()
	topics := slices.Clone(f.topics)
	changed, over = f.changed, f.over
	f.mu.Unlock()
	for t := range seen {
		if c, ok := t.(*Chain); ok && !slices.Contains(topics, t) {
			events = append(events, event("gone", map[string]int{"c": c.id}))
			delete(seen, t)
		}
	}
	for _, t := range topics {
		more, number := t.events(seen[t])
		events = append(events, more...)
		if number > 0 {
			seen[t] = number
		}
	}
	if over {
		events = append(events, event("bye", struct{}{}))
	}
	return events, changed, over
}

// event encodes one server-sent event.
func event(name string, v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // all values are strings and finite numbers
	}
	return fmt.Appendf(nil, "event: %s\ndata: %s\n\n", name, data)
}
