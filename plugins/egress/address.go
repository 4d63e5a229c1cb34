package egress

import "net/netip"

// reach says who may be sent to an address.
type reach int

const (
	never   reach = iota // nobody: link-local, metadata, multicast, reserved
	granted              // rules with Private: loopback, private, carrier-grade NAT
	public               // every rule
)

// block is the reach of a prefix. The first block that holds an address
// decides.
type block struct {
	prefix netip.Prefix
	reach  reach
}

func blocks(reach reach, prefixes ...string) []block {
	all := make([]block, len(prefixes))
	for i, p := range prefixes {
		all[i] = block{prefix: netip.MustParsePrefix(p), reach: reach}
	}
	return all
}

// metadata are addresses where clouds hand out credentials or settings of
// their machines, by whatever name: AWS, Google and others, Amazon ECS and
// EKS, Scaleway, Alibaba, Oracle, Azure.
var metadata = blocks(never,
	"169.254.0.0/16", "fd00:ec2::/32", "fd20:ce::254/128", "fd00:42::42/128", "100.100.100.200/32", "192.0.0.192/32", "168.63.129.16/32")

var ipv4 = append(blocks(granted,
	"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", // private
	"127.0.0.0/8",   // loopback
	"100.64.0.0/10", // carrier-grade NAT
	"198.18.0.0/15", // benchmarks
), blocks(never,
	"0.0.0.0/8",                                         // this network: 0.0.0.0 is this host
	"192.0.0.0/24",                                      // protocol assignments
	"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", // documentation
	"192.88.99.0/24", // 6to4 relays
	"224.0.0.0/4",    // multicast
	"240.0.0.0/4",    // reserved and broadcast
)...)

var ipv6 = append(blocks(granted,
	"::1/128",  // loopback
	"fc00::/7", // unique local
), blocks(never,
	"2001::/23",     // protocol assignments, Teredo among them
	"2001:db8::/32", // documentation
	"3fff::/20",     // documentation
)...)

// Prefixes whose addresses hold an IPv4 address: where its four bytes begin.
var embedded = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12}, // NAT64
	{netip.MustParsePrefix("2002::/16"), 2},     // 6to4
}

// global holds every IPv6 address that is routed between networks.
var global = netip.MustParsePrefix("2000::/3")

// reachOf returns who may be sent to addr. What is not known to be public is
// not.
func reachOf(addr netip.Addr) reach {
	addr = addr.Unmap().WithZone("")
	if r, ok := find(metadata, addr); ok {
		return r
	}
	if addr.Is4() {
		if r, ok := find(ipv4, addr); ok {
			return r
		}
		return public
	}
	for _, e := range embedded {
		if e.prefix.Contains(addr) {
			b := addr.As16()
			return reachOf(netip.AddrFrom4([4]byte(b[e.at : e.at+4])))
		}
	}
	if r, ok := find(ipv6, addr); ok {
		return r
	}
	if global.Contains(addr) {
		return public
	}
	return never
}

func find(blocks []block, addr netip.Addr) (reach, bool) {
	for _, b := range blocks {
		if b.prefix.Contains(addr) {
			return b.reach, true
		}
	}
	return never, false
}
