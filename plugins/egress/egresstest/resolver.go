// Package egresstest makes names resolve to what a test says, without a
// network. It checks nothing and sends nothing.
package egresstest

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
)

// Names is a name server that knows some names, in lower case and without a
// final dot. An answer may change from one question to the next.
type Names struct {
	mu    sync.Mutex
	addrs map[string][][]netip.Addr
	asked map[string]int
}

// Set makes name stand for addrs. Several sets are given in turn, one for each
// question, A and AAAA counted as one; the last one stays.
func (n *Names) Set(name string, sets ...[]netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.addrs == nil {
		n.addrs, n.asked = map[string][][]netip.Addr{}, map[string]int{}
	}
	n.addrs[name], n.asked[name] = sets, 0
}

// Resolver returns a resolver that asks n.
func (n *Names) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go n.serve(far)
		return near, nil
	}}
}

// Types of DNS records.
const (
	typeA    = 1
	typeAAAA = 28
)

// serve answers the questions of one connection, each after its length.
func (n *Names) serve(conn net.Conn) {
	defer conn.Close()
	for {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		answer := n.answer(query)
		if answer == nil {
			return
		}
		out := binary.BigEndian.AppendUint16(nil, uint16(len(answer)))
		if _, err := conn.Write(append(out, answer...)); err != nil {
			return
		}
	}
}

// headerLen is the length of the header of a DNS message.
const headerLen = 12

// answer returns the reply to a query with one question, or nil.
func (n *Names) answer(query []byte) []byte {
	name, end := question(query)
	if end == 0 {
		return nil
	}
	kind := binary.BigEndian.Uint16(query[end-4:])
	addrs, known := n.lookup(name, kind)
	out := append([]byte(nil), query[:end]...)
	out[2], out[3] = 0x84, 0x00 // a reply, with authority
	if !known {
		out[3] = 3 // no such name
	}
	binary.BigEndian.PutUint16(out[6:], uint16(len(addrs)))
	clear(out[8:headerLen])
	for _, a := range addrs {
		out = append(out, 0xc0, headerLen) // the name in the question
		out = binary.BigEndian.AppendUint16(out, kind)
		out = append(out, 0, 1, 0, 0, 0, 0) // class IN, for no time
		data := a.AsSlice()
		out = binary.BigEndian.AppendUint16(out, uint16(len(data)))
		out = append(out, data...)
	}
	return out
}

// question returns the name that a query asks for and where its question ends;
// 0 when it has none.
func question(query []byte) (name string, end int) {
	var labels []string
	for i := headerLen; i < len(query); {
		n := int(query[i])
		if n == 0 {
			if i+5 > len(query) {
				return "", 0
			}
			return strings.ToLower(strings.Join(labels, ".")), i + 5
		}
		if i+1+n > len(query) {
			return "", 0
		}
		labels = append(labels, string(query[i+1:i+1+n]))
		i += 1 + n
	}
	return "", 0
}

// lookup returns the addresses of the asked kind.
func (n *Names) lookup(name string, kind uint16) (addrs []netip.Addr, known bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	sets, known := n.addrs[name]
	if len(sets) == 0 {
		return nil, known
	}
	// A resolver asks for both kinds at once.
	set := sets[min(n.asked[name]/2, len(sets)-1)]
	n.asked[name]++
	for _, a := range set {
		if kind == typeA && a.Is4() || kind == typeAAAA && a.Is6() {
			addrs = append(addrs, a)
		}
	}
	return addrs, true
}
