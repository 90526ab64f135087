package tree

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// The unit file keeps set-user-ID and set-group-ID bits, capabilities of files and devices from the daemon, though it runs
// as root. The error of each says what it was, and has the kind whose hint names the drop-in that permits it.
func TestKeptByUnit(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has rights that can be taken away")
	}
	set, group := fileEntry("a"), dirEntry("a")
	set.mode, group.mode = 0o4755, 0o2755
	able := fileEntry("a")
	able.xattrs = []xattr{{"security.capability", "\x01\x00\x00\x02\x00\x04" + strings.Repeat("\x00", 14)}}
	device := &entry{path: "a", kind: typeChar, mode: 0o600, major: 1, minor: 3}
	for _, c := range []struct {
		e    *entry
		says string
	}{
		{set, "set-user-ID or set-group-ID, mode 4755"}, {group, "set-user-ID or set-group-ID, mode 2755"},
		{able, "extended attribute security.capability"}, {device, "device: "},
	} {
		stream := streamWith(top(), c.e)
		if _, err := unpack(t, stream, 512); err != nil {
			t.Fatalf("with all rights: %v", err)
		}
		var err error
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // and never unlocked: the thread ends with its restrictions
			if err = restrict(); err == nil {
				_, err = unpack(t, stream, 512)
			}
		}()
		<-done
		if kind, _ := errkind.Of(err); kind != "output-tree-rights" || !strings.Contains(err.Error(), c.says) {
			t.Errorf("want %q, got kind %q: %v", c.says, kind, err)
		}
	}
}

// restrict takes from this thread what RestrictSUIDSGID= and CapabilityBoundingSet= of the unit take from the daemon.
func restrict() error {
	caps := [2]unix.CapUserData{}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return err
	}
	caps[0].Effective &^= 1<<unix.CAP_MKNOD | 1<<unix.CAP_SETFCAP
	err := unix.Capset(&header, &caps[0])
	const number, second, third = 0, 24, 32 // of struct seccomp_data, with the lower halves of arguments; little-endian
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	jump := func(test uint16, k uint32, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, K: k, Jf: no}
	}
	end := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	var filter []unix.SockFilter
	for call, mode := range map[uint32]uint32{unix.SYS_FCHMOD: second, unix.SYS_FCHMODAT: third} {
		filter = append(filter, load(number), jump(unix.BPF_JEQ, call, 3), load(mode),
			jump(unix.BPF_JSET, unix.S_ISUID|unix.S_ISGID, 1), end(unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM)))
	}
	filter = append(filter, end(unix.SECCOMP_RET_ALLOW))
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return errors.Join(err, unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
		unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0))
}
