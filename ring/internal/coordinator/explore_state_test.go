//go:build !race

package coordinator

import (
	"fmt"
	"hash/maphash"
	"reflect"
	"slices"
	"unsafe"

	"github.com/dolly-img/dolly-img/ring/internal/member"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
)

// Copies and fingerprints of the explorer's states. Both follow a plan that is made
// once for each type, so that a field added to chain or member is part of both without
// anybody thinking of it.

// layout is what of a type has to be looked at, by offset.
type layout struct {
	size     uintptr
	parts    []piece
	typ      reflect.Type
	still    bool // it never changes
	pointers bool // it has some
	deep     bool // it leads to what detach copies
}

type piece struct {
	kind   partKind
	off, n uintptr // of partBytes
	elem   *layout
	slice  reflect.Type
	hash   bool // part of the fingerprint
}

type partKind int

const (
	partBytes partKind = iota
	partString
	partSlice
	partPointer // to something that changes
	partShared  // to something that does not: its content counts
	partMessage
	partSet // of leaves, which does not change
	partAny
)

// unhashed are fields that only reports are made of, or that follow from others, or that
// nothing depends on here: a blob of known size needs no FIN. Of a row the state counts.
var unhashed = map[string]bool{
	"coordinator.Machine.out": true, "coordinator.Machine.blobs": true, "coordinator.Machine.cfg": true, "coordinator.node.note": true, "coordinator.progress.moved": true, "coordinator.progress.has": true, "coordinator.progress.busy": true, "coordinator.progress.owes": true, "coordinator.progress.hadThen": true, "coordinator.progress.said": true, "coordinator.progress.saidAt": true, "coordinator.progress.goodAt": true, "coordinator.progress.small": true, "coordinator.progress.durable": true, "coordinator.progress.saidThen": true, "coordinator.node.taken": true, "coordinator.contact.had": true, "coordinator.contact.asked": true,
	"coordinator.reach.since": true, "coordinator.cutFrom.why": true, "coordinator.holdings.lost": true, "coordinator.holdings.first": true,
	"coordinator.Row.Digest": true, "coordinator.Row.Bytes": true, "coordinator.Row.Skipped": true, "coordinator.Row.Reason": true, "coordinator.Row.Cause": true, "coordinator.Row.Link": true, "coordinator.Row.Free": true, "coordinator.Row.NoSHA": true,
	"member.Machine.out": true, "member.Machine.feedFin": true, "member.blob.want": true, "coordinator.world.err": true, "coordinator.budget.delays": true,
	// What is the same in all worlds, and what fingerprint sees to.
	"coordinator.world.blob": true, "coordinator.world.sum": true, "coordinator.world.c": true, "coordinator.Machine.nodes": true, "coordinator.world.nodes": true, "coordinator.world.links": true, "coordinator.world.owned": true,
}

// Complete before explorers run in parallel.
var layouts = map[reflect.Type]*layout{}

func init() {
	layoutOf(reflect.TypeFor[world]())
	layoutOf(reflect.TypeFor[Machine]())
	layoutOf(reflect.TypeFor[node]())
	layoutOf(reflect.TypeFor[xNode]())
	layoutOf(reflect.TypeFor[xLink]())
}

func layoutOf(t reflect.Type) *layout {
	if l := layouts[t]; l != nil {
		return l
	}
	l := &layout{size: t.Size(), typ: t}
	layouts[t] = l
	l.add(t, 0, true)
	l.still = t == reflect.TypeFor[*xMessage]()
	for _, p := range l.parts {
		l.pointers = l.pointers || p.kind != partBytes
		l.deep = l.deep || p.kind == partSlice || p.kind == partPointer
	}
	return l
}

func (l *layout) add(t reflect.Type, off uintptr, hash bool) {
	part := piece{off: off, hash: hash}
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			l.add(f.Type, off+f.Offset, hash && !unhashed[t.String()+"."+f.Name])
		}
		return
	case reflect.Array:
		for i := range t.Len() {
			l.add(t.Elem(), off+uintptr(i)*t.Elem().Size(), hash)
		}
		return
	case reflect.String:
		part.kind = partString
	case reflect.Slice:
		part.kind, part.elem, part.slice = partSlice, layoutOf(t.Elem()), reflect.SliceOf(t.Elem())
	case reflect.Pointer:
		part.kind = partPointer
		if t == reflect.TypeFor[*xMessage]() {
			part.kind = partMessage
		} else if t == reflect.TypeFor[*leaf.Set]() {
			part.kind = partSet
		} else if t.Elem() != reflect.TypeFor[member.Machine]() && t.Elem().PkgPath() != reflect.TypeFor[Machine]().PkgPath() {
			part.kind = partShared
		} else {
			part.elem = layoutOf(t.Elem())
		}
	case reflect.Interface:
		part.kind = partAny
	default:
		part.n = t.Size()
		if k := len(l.parts) - 1; k >= 0 && l.parts[k].kind == partBytes && l.parts[k].hash == hash && l.parts[k].off+l.parts[k].n == off {
			l.parts[k].n += part.n
			return
		}
	}
	l.parts = append(l.parts, part)
}

// detach makes what at points to, which has the same bytes as another value, independent of it.
func (l *layout) detach(at unsafe.Pointer) {
	for i := range l.parts {
		p := &l.parts[i]
		f := unsafe.Add(at, p.off)
		switch p.kind {
		case partSlice:
			header := (*[3]uintptr)(f) // its pointer, length and capacity
			n := header[1]
			if header[2] = n; n == 0 || p.elem.still {
				continue // to append to it makes a copy
			}
			if !p.elem.pointers {
				fresh := make([]uint64, (n*p.elem.size+7)/8)
				to := unsafe.Pointer(unsafe.SliceData(fresh))
				copy(unsafe.Slice((*byte)(to), n*p.elem.size), unsafe.Slice(*(**byte)(f), n*p.elem.size))
				*(*unsafe.Pointer)(f) = to
				continue
			}
			fresh := reflect.MakeSlice(p.slice, int(n), int(n))
			reflect.Copy(fresh, reflect.NewAt(p.slice, f).Elem())
			*(*unsafe.Pointer)(f) = fresh.UnsafePointer()
			if p.elem.deep {
				for k := range n {
					p.elem.detach(unsafe.Add(fresh.UnsafePointer(), k*p.elem.size))
				}
			}
		case partPointer:
			old := *(*unsafe.Pointer)(f)
			if old == nil {
				continue
			}
			fresh := reflect.New(p.elem.typ)
			fresh.Elem().Set(reflect.NewAt(p.elem.typ, old).Elem())
			*(*unsafe.Pointer)(f) = fresh.UnsafePointer()
			p.elem.detach(fresh.UnsafePointer())
		}
	}
}

func (l *layout) hash(h *maphash.Hash, at unsafe.Pointer) {
	for i := range l.parts {
		p := &l.parts[i]
		if !p.hash {
			continue
		}
		f := unsafe.Add(at, p.off)
		switch p.kind {
		case partBytes:
			h.Write(unsafe.Slice((*byte)(f), p.n))
		case partString:
			s := *(*string)(f)
			h.WriteByte(byte(len(s)))
			h.WriteString(s)
		case partSlice:
			s := *(*[]byte)(f)
			h.WriteByte(byte(len(s)))
			for k := range len(s) {
				p.elem.hash(h, unsafe.Add(unsafe.Pointer(unsafe.SliceData(s)), uintptr(k)*p.elem.size))
			}
		case partPointer:
			to := *(*unsafe.Pointer)(f)
			if to == nil {
				h.WriteByte(0)
				continue
			}
			h.WriteByte(1)
			p.elem.hash(h, to)
		case partShared:
			to := *(*unsafe.Pointer)(f)
			h.WriteByte(0)
			if to != nil {
				h.WriteByte(1) // what it says follows from the rest
			}
		case partMessage:
			h.WriteString((*(**xMessage)(f)).key)
		case partSet:
			if set := *(**leaf.Set)(f); set == nil {
				h.WriteByte(0)
			} else {
				h.WriteByte(1)
				h.Write(set.Bits())
			}
		case partAny:
			panic("coordinator: an interface in the explorer's state")
		}
	}
}

// xMessage is a message, or the event it becomes, on its way. It never changes.
type xMessage struct {
	m   any
	key string
}

func onTheWay(m any) *xMessage {
	text := m
	switch ev := m.(type) {
	case EvVerified:
		text = *ev.Msg
	case EvFallback:
		text = *ev.Msg
	}
	return &xMessage{m, fmt.Sprintf("%T %+v;", m, text)}
}

// clone copies a world; what own and ownChain copy is shared, and so are messages, which
// are never changed.
func clone(w *world) *world {
	out := new(world)
	*out = *w
	out.nodes, out.asks, out.links = slices.Clone(w.nodes), slices.Clone(w.asks), slices.Clone(w.links)
	for k, l := range w.links {
		c := *l
		out.links[k] = &c
	}
	out.owned, out.sums = make([]bool, len(w.owned)), slices.Clone(w.sums)
	return out
}

// copyOf copies everything that from leads to.
func copyOf[T any](from *T) *T {
	to := new(T)
	*to = *from
	layoutOf(reflect.TypeFor[T]()).detach(unsafe.Pointer(to))
	return to
}

// fingerprint is equal for equal worlds. Of two different ones among ten million it is equal
// once in 400,000 runs.
func fingerprint(seed maphash.Seed, w *world) uint64 {
	for i := range w.owned {
		switch {
		case !w.owned[i]:
		case i == 0:
			w.sums[i] = w.chainPrint(seed)
		default:
			w.sums[i] = printOf(seed, w.nodes[i])
		}
		w.owned[i] = false
	}
	links := uint64(0) // they are in no order
	for _, l := range w.links {
		links += printOf(seed, l)
	}
	return maphash.Comparable(seed, [2]uint64{printOf(seed, w), links})
}

// chainPrint leaves out what the coordinator kept of nodes that are gone and will never read
// again: of one that comes back it begins anew.
func (w *world) chainPrint(seed maphash.Seed) uint64 {
	sum := printOf(seed, w.c)
	for i := range w.c.nodes {
		n := w.c.nodes[i]
		switch {
		case n.contact.alive || n.contact.resuming || w.may.cuts > 0:
		case n.phase == phFinal:
			n = node{phase: n.phase, row: n.row}
		case n.phase == phAway:
			n.progress.report, n.progress.links, n.commit.verified, n.feed.ordered = wire.Report{}, nil, nil, nil
			n.feed.link, n.feed.feeder, n.feed.needs = 0, 0, nil
		}
		sum = maphash.Comparable(seed, [2]uint64{sum, printOf(seed, &n)})
	}
	return w.liarPrint(seed, sum)
}

func printOf[T any](seed maphash.Seed, of *T) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	layoutOf(reflect.TypeFor[T]()).hash(&h, unsafe.Pointer(of))
	return h.Sum64()
}
