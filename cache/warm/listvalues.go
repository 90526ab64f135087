package warm

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/hostlist"
	"github.com/dolly-img/dolly-img/ring/tomlkeys"
)

// text reads a text that is not empty.
func text(v any, to *string) error {
	if err := tomlkeys.Text(v, to); err != nil || strings.TrimSpace(*to) == "" || strings.ContainsRune(*to, 0) {
		return errors.New("want a text in quotes")
	}
	return nil
}

// word reads a text without blanks.
func word(v any, to *string) error {
	if s, ok := v.(string); ok && strings.ContainsAny(s, " \t\r\n") {
		return errors.New("want a text without blanks")
	}
	return text(v, to)
}

func texts(v any, to *[]string) error {
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return errors.New("want a list of texts, as in [\"gpu\"]")
	}
	for _, v := range list {
		var s string
		if err := text(v, &s); err != nil {
			return err
		}
		*to = append(*to, s)
	}
	return nil
}

func absolute(v any, to *string) error {
	var s string
	if err := text(v, &s); err != nil || !filepath.IsAbs(s) {
		return errors.New("want an absolute path")
	}
	*to = s
	return nil
}

func number(v any, least, most int64, to *int) error {
	n, ok := v.(int64)
	if !ok || n < least || n > most {
		return fmt.Errorf("want %d to %d", least, most)
	}
	*to = int(n)
	return nil
}

// duration reads a time as time.ParseDuration does.
func duration(v any, least time.Duration, to *time.Duration) error {
	s, _ := v.(string)
	d, err := time.ParseDuration(s)
	if err != nil || d < least || d > longest {
		return fmt.Errorf("want a time from %v to %v, such as \"10m\"", least, longest)
	}
	*to = d
	return nil
}

func (r *Retry) set(v any) error {
	s, _ := v.(string)
	least, most, ok := strings.Cut(s, "..")
	if err := errors.Join(duration(least, leastRetry, &r.Least), duration(most, leastRetry, &r.Most)); !ok || err != nil || r.Least > r.Most {
		return errors.New("want two times, as in \"1m..1h\"")
	}
	return nil
}

func (l *List) setWindows(v any) error {
	var list []string
	if err := texts(v, &list); err != nil {
		return errors.New("want a list, as in [\"Mon-Fri 20:00-06:00\", \"Sat-Sun\"]")
	}
	for _, s := range list {
		w, err := ParseWindow(s)
		if err != nil {
			return err
		}
		l.Windows = append(l.Windows, w)
	}
	return nil
}

func (l *List) setZone(v any) error {
	var s string
	if err := text(v, &s); err != nil {
		return err
	}
	zone, err := time.LoadLocation(s)
	if err == nil {
		l.Zone = zone
	}
	return err
}

func (o *Outside) set(v any) error {
	switch v {
	case "off":
		o.Off = true
	case "full":
	default:
		if rate(v, &o.Rate) != nil {
			return errors.New("want \"off\", \"full\" or bytes per second, such as \"100M\"")
		}
	}
	return nil
}

// rate reads bytes per second with a unit.
func rate(v any, to *int64) error {
	s, _ := v.(string)
	n, err := bytesize.Parse(s)
	if err != nil || n < leastRate {
		return errors.New("want bytes per second, from 1M on, such as \"100M\"")
	}
	*to = n
	return nil
}

func (s *Share) set(v any) error {
	text, _ := v.(string)
	number, ok := strings.CutSuffix(text, "%")
	f, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(f > 0 && f <= 100) {
		return errors.New("want a share of the nodes, such as \"98%\"")
	}
	*s = Share(f)
	return nil
}

func platform(v any, to *string) error {
	var s string
	if err := word(v, &s); err != nil {
		return err
	}
	if n := strings.Count(s, "/"); n < 1 || n > 2 || slices.Contains(strings.Split(s, "/"), "") {
		return errors.New("want a platform, such as \"linux/amd64\"")
	}
	*to = s
	return nil
}

func (g *Group) setNames(v any) error {
	var s string
	if err := text(v, &s); err != nil {
		return err
	}
	if strings.Contains(s, "@") {
		return errors.New("a file of nodes is given with the key file")
	}
	names, err := hostlist.Parse([]string{s}, hostlist.Options{})
	g.Names = names
	return err
}

func (i *Image) setTags(v any) error {
	if err := word(v, &i.Tags); err != nil {
		return err
	}
	if _, err := path.Match(i.Tags, ""); err != nil {
		return errors.New("want a pattern of tags, such as \"25.*\"")
	}
	return nil
}
