package warm

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// A Window is a time of the week by the local clock: some days, and hours of them. Hours that end before they begin go
// through midnight, and belong to the day on which they begin. A window is compared with what the clock shows, so where the clock is put
// forward it is shorter, and where it is put back it is longer.
type Window struct {
	days [7]bool // by time.Weekday
	// from and to are minutes of the day. to is behind from, or before it if the window goes through midnight.
	from, to int
}

const dayMinutes = 24 * 60

// Has reports whether a moment is in the window, by the clock of the zone that it is in.
func (w Window) Has(t time.Time) bool {
	day, minute := t.Weekday(), t.Hour()*60+t.Minute()
	if w.from < w.to {
		return w.days[day] && w.from <= minute && minute < w.to
	}
	return w.days[day] && minute >= w.from || w.days[(day+6)%7] && minute < w.to
}

// Open reports whether rings run at their full rate at a moment.
func (l *List) Open(t time.Time) bool {
	t = t.In(l.Zone)
	for _, w := range l.Windows {
		if w.Has(t) {
			return true
		}
	}
	return len(l.Windows) == 0
}

// Opens returns the first minute after a moment, at which rings do not run at their full rate, when they do again. It is compared
// minute by minute, as the clock may be put forward or back until then.
func (l *List) Opens(t time.Time) time.Time {
	for t = t.In(l.Zone).Truncate(time.Minute); !l.Open(t); {
		t = t.Add(time.Minute)
	}
	return t
}

var dayNames = [7]string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}

// ParseWindow reads days, hours, or both: "Mon-Fri 20:00-06:00", "Sat,Sun", "01:00-05:30". Days are as in English, with
// three letters, and may go over the end of the week. Without days it is every day, and without hours the whole day.
func ParseWindow(s string) (w Window, err error) {
	w = Window{days: [7]bool{true, true, true, true, true, true, true}, to: dayMinutes}
	fields := strings.Fields(s)
	switch {
	case len(fields) == 2:
		if err = w.setDays(fields[0]); err == nil {
			err = w.setHours(fields[1])
		}
	case len(fields) == 1 && strings.Contains(fields[0], ":"):
		err = w.setHours(fields[0])
	case len(fields) == 1:
		err = w.setDays(fields[0])
	default:
		err = errors.New("want days, hours or both, as in Mon-Fri 20:00-06:00")
	}
	if err != nil {
		return Window{}, fmt.Errorf("window %q: %w", s, err)
	}
	return w, nil
}

func (w *Window) setDays(s string) error {
	w.days = [7]bool{}
	for part := range strings.SplitSeq(s, ",") {
		first, last, ok := strings.Cut(part, "-")
		if !ok {
			last = first
		}
		from, to := day(first), day(last)
		if from < 0 || to < 0 {
			return fmt.Errorf("%q is no day or days (Mon Tue Wed Thu Fri Sat Sun)", part)
		}
		for w.days[from] = true; from != to; w.days[from] = true {
			from = (from + 1) % 7
		}
	}
	return nil
}

func day(name string) int {
	for i, d := range dayNames {
		if strings.EqualFold(d, name) {
			return i
		}
	}
	return -1
}

func (w *Window) setHours(s string) error {
	from, to, ok := strings.Cut(s, "-")
	var err, err2 error
	w.from, err = minuteOf(from)
	w.to, err2 = minuteOf(to)
	switch {
	case !ok:
		return fmt.Errorf("%q: want two times of the day, as in 20:00-06:00", s)
	case err != nil:
		return err
	case err2 != nil:
		return err2
	case w.from == dayMinutes:
		return errors.New("begins at 24:00: want 00:00")
	case w.from == w.to:
		return errors.New("begins and ends at the same time; for the whole day leave the hours out")
	}
	return nil
}

// minuteOf reads a time of the day as "15:04". It may be 24:00.
func minuteOf(s string) (int, error) {
	if s == "24:00" {
		return dayMinutes, nil
	}
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != len("15:04") {
		return 0, fmt.Errorf("%q is no time of the day (00:00 to 24:00)", s)
	}
	return t.Hour()*60 + t.Minute(), nil
}
