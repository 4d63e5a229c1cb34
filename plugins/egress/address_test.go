package egress

import (
	"net/netip"
	"testing"
)

func TestReach(t *testing.T) {
	for want, addrs := range map[reach][]string{
		public: {
			"1.1.1.1", "93.184.216.34", "172.15.0.1", "172.32.0.1", "100.63.255.255", "100.128.0.1", "192.0.1.1", "223.255.255.255",
			"2606:4700:4700::1111", "2a00::1", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1",
		},
		granted: {
			"127.0.0.1", "127.255.255.255", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.127.255.255",
			"198.18.0.1", "::1", "fc00::1", "fdff::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a00:1::1",
		},
		never: {
			"169.254.169.254", "169.254.170.2", "169.254.0.1", "fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd20:ce::254", "fd00:42::42",
			"::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "64:ff9b:1::a9fe:a9fe",
			"0.0.0.0", "0.1.2.3", "255.255.255.255", "240.0.0.1", "224.0.0.1", "239.1.1.1", "192.0.2.1", "198.51.100.1", "203.0.113.1", "192.88.99.1",
			"::", "::ffff:0.0.0.0", "::127.0.0.1", "::7f00:1", "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "ff02::1",
			"2001::1", "2001:db8::1", "3fff::1", "100::1", "5f00::1", "4000::1",
		},
	} {
		for _, a := range addrs {
			if got := reachOf(netip.MustParseAddr(a)); got != want {
				t.Errorf("%s: got %d, want %d", a, got, want)
			}
		}
	}
}

func TestDialerAllows(t *testing.T) {
	for _, tt := range []struct {
		network, address string
		open, private    bool
	}{
		{"tcp4", "1.1.1.1:443", true, true},
		{"tcp6", "[2606:4700::1]:443", true, true},
		{"tcp4", "127.0.0.1:80", false, true},
		{"tcp6", "[::1]:80", false, true},
		{"tcp6", "[fe80::1%1]:80", false, false},
		{"tcp4", "169.254.169.254:80", false, false},
		{"udp4", "1.1.1.1:53", false, false},
		{"unix", "/run/socket", false, false},
		{"tcp4", "1.1.1.1", false, false},
	} {
		for _, private := range []bool{false, true} {
			want := tt.open
			if private {
				want = tt.private
			}
			if got := (dialer{private: private}).allows(tt.network, tt.address); got != want {
				t.Errorf("%s %s, private %v: got %v, want %v", tt.network, tt.address, private, got, want)
			}
		}
	}
}
