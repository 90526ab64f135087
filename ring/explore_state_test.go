//go:build !race

package ring

import (
	"fmt"
	"hash/maphash"
	"reflect"
	"unsafe"
)

// Copies and fingerprints of the explorer's states. Both follow a plan that is made
// once for each type, so that a field added to chain or member is part of both without
// anybody thinking of it.

// layout is what of a type has to be looked at, by offset.
type layout struct {
	size  uintptr
	parts []piece
	typ   reflect.Type
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
	partAny
)

// unhashed are fields that only reports are made of, or that follow from others.
var unhashed = map[string]bool{
	"chain.out": true, "chain.blobs": true, "member.out": true, "chainNode.row": true, "chainNode.note": true,
	"chainNode.moved": true, "chainNode.asked": true, "world.err": true, "memberBlob.want": true, "budget.delays": true,
}

var layouts = map[reflect.Type]*layout{}

func layoutOf(t reflect.Type) *layout {
	if l := layouts[t]; l != nil {
		return l
	}
	l := &layout{size: t.Size(), typ: t}
	layouts[t] = l
	l.add(t, 0, true)
	return l
}

func (l *layout) add(t reflect.Type, off uintptr, hash bool) {
	part := piece{off: off, hash: hash}
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			l.add(f.Type, off+f.Offset, hash && !unhashed[t.Name()+"."+f.Name])
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
		} else if n := t.Elem().PkgPath(); t.Elem().Name() == "nodeError" || t.Elem().Name() == "suspicion" || n != reflect.TypeFor[chain]().PkgPath() {
			part.kind = partShared
		} else {
			part.elem = layoutOf(t.Elem())
		}
	case reflect.Interface:
		part.kind = partAny
	default:
		part.n = t.Size()
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
			old := *(*[]byte)(f) // its length and capacity count elements
			if old == nil {
				continue
			}
			fresh := reflect.MakeSlice(p.slice, len(old), len(old))
			reflect.Copy(fresh, reflect.NewAt(p.slice, f).Elem())
			reflect.NewAt(p.slice, f).Elem().Set(fresh)
			if p.elem.deep() {
				for k := range len(old) {
					p.elem.detach(unsafe.Add(fresh.UnsafePointer(), uintptr(k)*p.elem.size))
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

// deep says whether a value is more than its own bytes.
func (l *layout) deep() bool {
	for _, p := range l.parts {
		if p.kind == partSlice || p.kind == partPointer {
			return true
		}
	}
	return false
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
		case partAny:
			panic("ring: an interface in the explorer's state")
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
	case evVerified:
		text = *ev.msg
	case evFallback:
		text = *ev.msg
	}
	return &xMessage{m, fmt.Sprintf("%T %+v;", m, text)}
}

// clone copies a world; messages are never changed and shared.
func clone(w *world) *world {
	out := new(world)
	*out = *w
	layoutOf(reflect.TypeFor[world]()).detach(unsafe.Pointer(out))
	return out
}

// fingerprint is equal for equal worlds.
func fingerprint(seed maphash.Seed, w *world) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	layoutOf(reflect.TypeFor[world]()).hash(&h, unsafe.Pointer(w))
	return h.Sum64()
}
