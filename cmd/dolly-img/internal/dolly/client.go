package dolly

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// Client writes what dolly writes on a client with -v.
type Client struct {
	w io.Writer

	mu    sync.Mutex
	moved moved
	ended bool
}

// NewClient writes to w, where a terminal has progress in one line.
func NewClient(w io.Writer, terminal bool) *Client {
	return &Client{w: w, moved: moved{terminal: terminal}}
}

// Write writes what is not of dolly, such as a line of a log, below a line of progress.
func (c *Client) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	write(c.w, c.moved.end)
	return c.w.Write(b)
}

// Listening says that a client waits. Buffer is the size of the kernel's buffer for receiving, in bytes. Stall is what -a says, in
// seconds.
func (c *Client) Listening(buffer, stall int) {
	write(c.w, func(b *printer) {
		b.WriteString(timeout(stall))
		b.printf("\nTrying to build ring...\nBuffer size: %d\nReceive buffer is %d bytes\nAccepting...", buffer/2, buffer)
	})
}

// Began says what the server asks for.
func (c *Client) Began(p Parameters, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moved.begin(now)
	write(c.w, func(b *printer) {
		b.printf("control...\nTrying to read parameters...done.\nParsing parameters...\ndone.\n")
		if p.Me >= 0 {
			b.printf("%s is number %d\n", p.Host, p.Me)
		}
		own := &printer{}
		p.print(own, false)
		b.Write(bytes.TrimSuffix(own.Bytes(), []byte("\n")))
		b.printf("Connected data...done.\n")
		if p.Me >= 0 && p.Me+1 < len(p.Nodes) {
			b.printf("Connecting to host %s...\ndata control.\n", p.Nodes[p.Me+1])
		}
		b.printf("Accepted.\nReceiving...\n")
	})
}

// Progress says how many bytes have come. The time until the first ones came does not count.
func (c *Client) Progress(now time.Time, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ended:
	case bytes == 0:
		c.moved.begin(now)
	default:
		write(c.w, func(b *printer) { c.moved.print(b, "Transfered", now, bytes) })
	}
}

// Ended says that this node has the size bytes of the file, of which so many had to come, and how long that took.
func (c *Client) Ended(received, size int64, took time.Duration, unsynced bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	write(c.w, func(b *printer) {
		mb, rate := float64(received)/1e6, 0.0
		if micros := took.Microseconds(); micros > 0 {
			rate = float64(received) / float64(micros)
		}
		if !c.moved.any {
			b.printf("Transfered MB: %.0f, MB/s: %.3f, Current MB/s: %.3f\n", mb, rate, rate)
		}
		c.moved.end(b)
		b.printf("Max. bytes will be %d bytes. 0 bytes left.\nTransfered MB: %.0f, MB/s: %.3f \n\n", size, mb, rate)
		if !unsynced {
			b.printf("Synced.\n")
		}
		b.printf("Transmitted.\n")
	})
}

// Break says that this node does not get the file: what is written next begins a line.
func (c *Client) Break() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	write(c.w, c.moved.end)
}
