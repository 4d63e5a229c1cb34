package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
)

// errAddress says that a name stands for an address that may not be dialled.
// It does not say which.
var errAddress = errors.New("egress: address not allowed")

// dialer connects to addresses that are allowed. The check is made on the
// address that the system is about to connect to, after every resolution, so a
// name that changes its mind between a check and its use gains nothing.
type dialer struct {
	resolver *net.Resolver
	private  bool // private addresses too
	conns    *conns
}

func (d dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	// Of several addresses one may be refused and another unreachable; the
	// refusal is what the operator is told of.
	var refused atomic.Bool
	nd := net.Dialer{
		Timeout:  dialTimeout,
		Resolver: d.resolver,
		ControlContext: func(_ context.Context, network, address string, _ syscall.RawConn) error {
			if d.allows(network, address) {
				return nil
			}
			refused.Store(true)
			return errAddress
		},
	}
	raw, err := nd.DialContext(ctx, network, address)
	switch {
	case err != nil && refused.Load():
		return nil, errAddress
	case err != nil:
		return nil, err
	}
	return d.conns.add(raw)
}

// allows reports whether a resolved address may be connected to.
func (d dialer) allows(network, address string) bool {
	to, err := netip.ParseAddrPort(address)
	if err != nil || network != "tcp4" && network != "tcp6" {
		return false
	}
	switch reachOf(to.Addr()) {
	case public:
		return true
	case granted:
		return d.private
	case never:
	}
	return false
}
