package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// A node that dies in mid-transfer takes nobody with it, wherever in the chain it is.
func TestKilledNode(t *testing.T) {
	together(t)
	const size = 20 << 20
	for _, data := range []string{"tls", "plain"} {
		for victim, where := range map[int]string{0: "first", 2: "middle", 4: "last"} {
			if data == "plain" && victim != 2 {
				continue // what is done about a loss has nothing to do with TLS
			}
			t.Run(data+" "+where, func(t *testing.T) {
				together(t)
				ctx := need(t, time.Minute)
				r := newRig(t, ctx, netns.Config{Nodes: 5})
				r.start()
				sent := makeFile(t, filepath.Join(r.dir, "sent"), size)
				p := r.startPush("raw", "--input", sent, "--output", r.data+"/file", "--rate", "10M", "--data", data, "--json")
				if _, err := p.process.Line(ctx, `"event":"progress"`); err != nil {
					t.Fatal(err)
				}
				r.nodes[victim].kill()
				res := p.wait()
				states := []string{"committed", "committed", "committed", "committed", "committed"}
				states[victim] = "failed"
				r.want(res, 3, states...)
				for i, n := range r.nodes {
					if i != victim {
						r.same(sent, "file", n)
						n.empty("file")
					} else if sum(t, n.path("file")) != "missing" {
						t.Error("the dead node has the file")
					}
				}
				if res.took > 12*time.Second { // 2 s without a loss; a node whose loss is noticed by its silence alone costs 5 s more
					t.Errorf("took %v", res.took)
				}
				if all := events(t, res.output); len(all) < 3 || all[len(all)-1]["nodes"] == nil {
					t.Errorf("events: the report is not the last\n%s", res.output)
				}
			})
		}
	}
}

// What one node cannot or may not do is its own row, the others commit.
func TestRefusingNodes(t *testing.T) {
	together(t)
	ctx := need(t, time.Minute)
	r := newRig(t, ctx, netns.Config{Nodes: 5})
	full, closed, existing, absent := r.nodes[0], r.nodes[1], r.nodes[2], r.nodes[3]
	full.Mounts = []netns.Mount{netns.Tmpfs(r.data, 1<<20)}
	closed.setPolicy("")
	existing.setPolicy(fmt.Sprintf("[[output]]\ndir = %q\n", r.data))
	old := makeFile(t, existing.path("file"), 1000)
	before := sum(t, old)
	r.start()
	absent.kill()

	sent := makeFile(t, filepath.Join(r.dir, "sent"), 8<<20)
	res := r.push("raw", "--input", sent, "--output", r.data+"/file")
	r.want(res, 3, "failed", "refused", "refused", "unreachable", "committed")
	r.same(sent, "file", r.nodes[4])
	if sum(t, old) != before {
		t.Error("a file was replaced that the policy keeps")
	}
	closed.empty()
	existing.empty("file")
	if left, err := os.ReadDir(fmt.Sprintf("/proc/%d/root%s", full.daemon.Pid(), r.data)); err != nil || len(left) > 0 {
		t.Errorf("on the full disk: %v, %v", left, err)
	}

	// All of them: exit 5 where all refuse, 4 where none commits.
	r.nodes = []*node{closed, existing}
	r.want(r.push("raw", "--input", sent, "--output", r.data+"/file"), 5, "refused")
	r.nodes = []*node{closed, absent}
	r.want(r.push("raw", "--input", sent, "--output", r.data+"/file"), 4, "refused", "unreachable")
}

// Whoever is killed, and whenever, with a file or with an image that goes through the cache:
// under the final name is the old file or the new.
func TestOldOrNew(t *testing.T) {
	together(t)
	for _, seed := range []uint64{7, 8} { // two at once: most of a round is waiting for who was killed
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			together(t)
			oldOrNew(t, seed)
		})
	}
}

func oldOrNew(t *testing.T, seed uint64) {
	ctx := need(t, 4*time.Minute)
	const rounds, size = 10, 6 << 20
	rng := rand.New(rand.NewPCG(seed, seed))
	r := newRig(t, ctx, netns.Config{Nodes: 3})
	r.start()
	file := func(i int) (sent string, args []string) { return alternate(r, i, size) }

	var whole [2]time.Duration // a file, an image
	for i := range whole {
		_, args := file(1 - i)
		res := r.push(args...)
		r.want(res, 0, "committed")
		whole[1-i] = res.took
	}
	var old, fresh int
	for i := 1; i <= rounds; i++ {
		had := make([]string, len(r.nodes))
		for k, n := range r.nodes {
			had[k] = sum(t, n.path("file"))
		}
		sent, args := file(i)
		want := sum(t, sent)
		moment := time.Duration(rng.Int64N(int64(whole[i%2]) * 5 / 4))
		victim := rng.IntN(len(r.nodes) + 1)
		p := r.startPush(args...)
		select { // the moment itself, not a state that is waited for
		case <-time.After(moment):
		case <-p.process.Done():
		}
		if victim < len(r.nodes) {
			r.nodes[victim].kill()
		} else {
			p.process.Signal(syscall.SIGKILL)
		}
		res := p.wait()
		for k, n := range r.nodes {
			switch got := sum(t, n.path("file")); got {
			case want:
				fresh++
			case had[k]:
				old++
			default:
				t.Fatalf("round %d, seed %d: %s has %s, neither old nor new (victim %d after %v)\n%s",
					i, seed, n.Name, got, victim, moment, res.output)
			}
		}
		if victim < len(r.nodes) {
			r.nodes[victim].start()
			continue
		}
		// Those that lost their server serve the next one.
		if res = r.push(args...); res.code != 0 { // a node may have committed before: held
			t.Errorf("exit %d\n%s", res.code, res.output)
		}
		r.same(sent, "file", r.nodes...)
	}
	t.Logf("%d times the old file, %d times the new", old, fresh)
	if old == 0 || fresh == 0 {
		t.Errorf("%d times the old file, %d times the new: the moments are badly chosen", old, fresh)
	}
	// The next push leaves nothing of the broken ones behind.
	_, args := file(0)
	r.want(r.push(args...), 0, "committed")
	leavesNothing(r)
}

// alternate makes what push i sends, and returns how: a file if i is even, and else an image that goes through the cache.
func alternate(r *rig, i int, size int64) (sent string, args []string) {
	if i%2 == 1 {
		sent = makeSIF(r.t, "sent", size)
		return sent, []string{"push", sent, "--output", r.data + "/file"}
	}
	sent = makeFile(r.t, filepath.Join(r.dir, "sent"), size+int64(i%3)*1000-1)
	return sent, []string{"raw", "--input", sent, "--output", r.data + "/file"}
}

// leavesNothing demands that nodes have the output and a whole cache, and no parts.
func leavesNothing(r *rig) {
	r.t.Helper()
	for _, n := range r.nodes {
		n.empty("file")
		if code, out := r.run(n.Host, "cache", "verify", "--cache", n.cache); code != 0 {
			r.t.Errorf("%s: cache verify: exit %d\n%s", n.Name, code, out)
		}
	}
}

// A push that is interrupted before the first commit leaves every node as it was.
func TestInterrupted(t *testing.T) {
	together(t)
	ctx := need(t, time.Minute)
	r := newRig(t, ctx, netns.Config{Nodes: 3})
	r.start()
	for _, n := range r.nodes {
		makeFile(t, n.path("file"), 1000)
	}
	sent := makeFile(t, filepath.Join(r.dir, "sent"), 100<<20)
	p := r.startPush("raw", "--input", sent, "--output", r.data+"/file", "--rate", "20M", "--json")
	if _, err := p.process.Line(ctx, `"event":"progress"`); err != nil {
		t.Fatal(err)
	}
	p.process.Signal(os.Interrupt)
	r.want(p.wait(), 6, "failed")
	for _, n := range r.nodes {
		if info, err := os.Stat(n.path("file")); err != nil || info.Size() != 1000 {
			t.Errorf("%s: the old file: %v, %v", n.Name, info, err)
		}
	}
}
