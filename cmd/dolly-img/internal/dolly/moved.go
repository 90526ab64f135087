package dolly

import "time"

// moved is the line of progress: on a terminal it stays in its place, elsewhere it is a line for each that is printed.
type moved struct {
	terminal bool
	any      bool      // it was printed
	open     bool      // and stands on the terminal without an end
	began    time.Time // of the data
	last     time.Time // of the last progress
	bytes    int64     // that it told
	whole    int64     // how many there will be, for the time left; 0 is not asked for, or not known
}

// begin says that data begins to move.
func (m *moved) begin(now time.Time) { m.began, m.last = now, now }

// print prints how many bytes have moved, unless that is no more than before.
func (m *moved) print(b *printer, what string, now time.Time, bytes int64) {
	total, current := now.Sub(m.began).Microseconds(), now.Sub(m.last).Microseconds()
	if bytes <= m.bytes || current <= 0 || total <= 0 {
		return
	}
	form := "%s MB: %.0f, MB/s: %.3f, Current MB/s: %.3f"
	args := []any{what, float64(bytes) / 1e6, float64(bytes) / float64(total), float64(bytes-m.bytes) / float64(current)}
	if m.whole >= bytes {
		left := time.Duration(float64(m.whole-bytes) * float64(total) / float64(bytes) * 1000)
		form += ", %.0f%% of %.0f MB, %v left"
		args = append(args, 100*float64(bytes)/float64(m.whole), float64(m.whole)/1e6, left.Round(time.Second))
	}
	if m.terminal {
		form = "\r" + form + "      "
	} else {
		form += "\n"
	}
	b.printf(form, args...)
	m.bytes, m.last, m.any, m.open = bytes, now, true, m.terminal
}

// end ends the line on a terminal.
func (m *moved) end(b *printer) {
	if m.open {
		m.open = false
		b.printf("\n")
	}
}
