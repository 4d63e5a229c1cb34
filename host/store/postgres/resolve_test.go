package postgres_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// When a proxy cuts the connection.
const (
	never = iota
	beforeCommit
	afterCommit // the server has committed, and nobody was told
)

// proxy forwards connections to a server and cuts one at a commit.
type proxy struct {
	net.Listener
	network, address string
	cut              atomic.Int32
	onCut            func()      // before a client is told of a cut before the commit; nil: nothing
	closed           atomic.Bool // no server is reached
	wg               sync.WaitGroup
}

func startProxy(t *testing.T, u string) (*proxy, string) {
	t.Helper()
	c, err := pgx.ParseConfig(u)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{network: "tcp", address: net.JoinHostPort(c.Host, fmt.Sprint(c.Port))}
	if strings.HasPrefix(c.Host, "/") {
		p.network, p.address = "unix", fmt.Sprintf("%s/.s.PGSQL.%d", c.Host, c.Port)
	}
	if p.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	p.wg.Go(p.accept)
	t.Cleanup(func() { p.Close(); p.wg.Wait() })
	through := url.URL{
		Scheme: "postgres", User: url.UserPassword(c.User, c.Password), Host: p.Addr().String(), Path: "/" + c.Database,
		// The text of each statement is then on the wire.
		RawQuery: "sslmode=disable&default_query_exec_mode=exec",
	}
	return p, through.String()
}

func (p *proxy) accept() {
	for {
		client, err := p.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial(p.network, p.address)
		if err != nil || p.closed.Load() {
			client.Close()
			if err == nil {
				server.Close()
			}
			continue
		}
		silent := &atomic.Bool{}
		p.wg.Go(func() { p.forward(client, server, silent) })
		p.wg.Go(func() { p.answer(server, client, silent) })
	}
}

// forward passes on what a client sends, up to the commit that is cut.
func (p *proxy) forward(client, server net.Conn, silent *atomic.Bool) {
	defer server.Close()
	buf := make([]byte, 1<<20)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		if bytes.Contains(buf[:n], []byte("\x00commit\x00")) {
			if p.cut.CompareAndSwap(beforeCommit, never) {
				if p.onCut != nil {
					p.onCut()
				}
				client.Close()
				return
			}
			if p.cut.CompareAndSwap(afterCommit, never) {
				silent.Store(true)
			}
		}
		if _, err := server.Write(buf[:n]); err != nil {
			client.Close()
			return
		}
	}
}

// answer passes on what the server sends; when silent it waits for the server
// to be ready again, then hangs up.
func (p *proxy) answer(server, client net.Conn, silent *atomic.Bool) {
	defer client.Close()
	buf := make([]byte, 1<<20)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		if silent.Load() {
			if bytes.HasSuffix(buf[:n], []byte("Z\x00\x00\x00\x05I")) {
				return
			}
			continue
		}
		if _, err := client.Write(buf[:n]); err != nil {
			server.Close()
			return
		}
	}
}

// TestCommitWithoutAnswer: a write whose answer was lost is neither written
// twice nor taken for a lost lease.
func TestCommitWithoutAnswer(t *testing.T) {
	p, u := startProxy(t, testdb.Postgres(t))
	d := open(t, u)
	defer d.Close()
	id := queue.NewID()
	insert := []store.Write{{Insert: &queue.New{ID: id, Tenant: "t", Model: "m", Path: "/p"}}}
	if results, err := d.Write(t.Context(), insert); errors.Join(append(results, err)...) != nil {
		t.Fatal(results, err)
	}
	cancel := []store.Write{{Fence: queue.Fence{ID: id}, Move: &store.Move{To: queue.Canceled, By: queue.ByCancel}}}
	p.cut.Store(beforeCommit)
	if _, err := d.Write(t.Context(), cancel); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("cut before the commit: got %v, want ErrUnavailable", err)
	}
	if r, err := d.Get(t.Context(), "", id, store.Parts{}); err != nil || r.State != queue.Pending {
		t.Errorf("cut before the commit: got %s, %v", r.State, err)
	}
	p.cut.Store(afterCommit)
	if results, err := d.Write(t.Context(), cancel); err != nil || results[0] != nil {
		t.Errorf("cut after the commit: got %v, %v, want success", results, err)
	}
	if r, err := d.Get(t.Context(), "", id, store.Parts{}); err != nil || r.State != queue.Canceled {
		t.Errorf("cut after the commit: got %s, %v", r.State, err)
	}
	if p.cut.Load() != never {
		t.Error("the proxy cut nothing")
	}
}

// TestCommitThatACrashForgot: a server that crashed gives the id of a
// transaction that it forgot to another one, whose commit is not the first
// one's.
func TestCommitThatACrashForgot(t *testing.T) {
	server := testdb.NewServer(t)
	p, u := startProxy(t, server.URL())
	d := open(t, u)
	defer d.Close()
	for range 10 {
		id := queue.NewID()
		insert := []store.Write{{Insert: &queue.New{ID: id, Tenant: "t", Model: "m", Path: "/p"}}}
		if results, err := d.Write(t.Context(), insert); errors.Join(append(results, err)...) != nil {
			t.Fatal(results, err)
		}
		before := consume(t, server.URL(), 0)
		reused := make(chan uint64, 1)
		p.onCut = func() {
			p.closed.Store(true)
			server.Kill()
			server.Start()
			reused <- consume(t, server.URL(), before+20)
			p.closed.Store(false)
		}
		p.cut.Store(beforeCommit)
		_, err := d.Write(t.Context(), []store.Write{{Fence: queue.Fence{ID: id}, Move: &store.Move{To: queue.Canceled, By: queue.ByCancel}}})
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
		if r, err := d.Get(t.Context(), "", id, store.Parts{}); err != nil || r.State != queue.Pending {
			t.Errorf("got %s, %v, want it pending", r.State, err)
		}
		if first := <-reused; first <= before+1 {
			return
		}
	}
	t.Error("the server gave no id out again: nothing was tried")
}

// consume commits transactions until their ids have reached most, at least one,
// and returns the first one's id.
func consume(t *testing.T, u string, most uint64) (first uint64) {
	conn, err := pgx.Connect(t.Context(), u)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer conn.Close(t.Context())
	for id := uint64(0); id == 0 || id < most; {
		if err := conn.QueryRow(t.Context(), `select pg_current_xact_id()::text::bigint`).Scan(&id); err != nil {
			t.Error(err)
			return 0
		}
		if first == 0 {
			first = id
		}
	}
	return first
}
