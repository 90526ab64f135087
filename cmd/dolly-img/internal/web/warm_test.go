package web

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/cache/warm"
)

// What a viewer is sent of a controller has the newest times also where nothing but times has changed. What says the same is not sent again.
func TestWarmTimes(t *testing.T) {
	s := listen(t)
	at := time.Unix(1e9, 0)
	snapshot := func(found, next, last int) *warm.Snapshot {
		return &warm.Snapshot{At: time.Now(), Images: []warm.ImageStatus{{
			Ref: "docker://r.example/torch:1", State: warm.ImageWarm,
			Found: at.Add(time.Duration(found) * time.Second), Next: at.Add(time.Duration(next) * time.Second), LastWarm: at.Add(time.Duration(last) * time.Second),
		}}}
	}
	s.Warm(snapshot(0, 10, 0))
	_, next := s.viewer(t)
	for i, want := range [][3]int{{0, 10, 0}, {10, 10, 0}, {10, 20, 0}, {10, 20, 5}} {
		if i > 0 {
			s.Warm(snapshot(want[0], want[1], want[2]))
			s.Warm(snapshot(want[0], want[1], want[2]))
		}
		name, data := next()
		var got warmView
		if err := json.Unmarshal([]byte(data), &got); name != "warm" || err != nil || len(got.Images) != 1 {
			t.Fatalf("%s %s: %v", name, data, err)
		}
		if g := got.Images[0]; g.Found-1e9 != int64(want[0]) || g.Next-1e9 != int64(want[1]) || g.LastWarm-1e9 != int64(want[2]) {
			t.Errorf("%d: %s", i, data)
		}
	}
	if s.warm.number != 4 {
		t.Errorf("%d states were sent, 4 were told", s.warm.number)
	}
}

// Who comes when nobody has looked for a while is not shown what was then.
func TestWarmForgotten(t *testing.T) {
	s := listen(t)
	snapshot := func(state warm.ImageState) *warm.Snapshot {
		return &warm.Snapshot{Images: []warm.ImageStatus{{Ref: "docker://r.example/torch:1", State: state}}}
	}
	s.Warm(snapshot(warm.ImageDegraded))
	s.ForgetWarm()
	_, next := s.viewer(t)
	s.Warm(snapshot(warm.ImageWarm))
	name, data := next()
	var got warmView
	if err := json.Unmarshal([]byte(data), &got); name != "warm" || err != nil || len(got.Images) != 1 || got.Images[0].State != string(warm.ImageWarm) {
		t.Errorf("%s %s: %v", name, data, err)
	}
}
