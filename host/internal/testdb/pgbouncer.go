package testdb

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// bouncerPort names a socket, not a port of the network.
const bouncerPort = "6432"

// PgBouncer returns the URL of a fresh, empty database through PgBouncer in
// transaction mode, with fewer connections to the server than a store opens, and
// the URL that goes to the server directly. Without PgBouncer the test fails: it
// never passes unseen.
func PgBouncer(tb testing.TB) (pooled, direct string) {
	tb.Helper()
	dir, err := bouncer()
	if err != nil {
		tb.Fatalf("testdb: no PgBouncer: %v\ninstall it (Debian: apt-get install pgbouncer)", err)
	}
	direct = Postgres(tb)
	u, err := url.Parse(direct)
	if err != nil {
		tb.Fatalf("testdb: %v", err)
	}
	u.Host, u.User = "", url.User(role)
	u.RawQuery = url.Values{"host": {dir}, "port": {bouncerPort}, "sslmode": {"disable"}}.Encode()
	return u.String(), direct
}

// pooling is the PgBouncer of this process.
var pooling process

const (
	bouncerScript = `start() { "$1" pgbouncer.ini >>log 2>&1 & }`
	endBouncer    = "TERM"
)

// bouncer starts one in front of the server and returns the directory of its
// socket.
var bouncer = sync.OnceValues(func() (string, error) {
	base, err := server()
	if err != nil {
		return "", err
	}
	if err := startBouncer(base); err != nil {
		pooling.stop()
		return "", err
	}
	return pooling.dir, nil
})

func startBouncer(base string) error {
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		// The directory of system programs is not in everybody's path.
		const other = "/usr/sbin/pgbouncer"
		if _, missing := os.Stat(other); missing != nil {
			return err
		}
		program = other
	}
	if err := pooling.makeDir("pgbouncer"); err != nil {
		return err
	}
	config, err := bouncerConfig(base, pooling.dir)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(pooling.dir, "pgbouncer.ini"), []byte(config), 0o644); err != nil {
		return err
	}
	if err := pooling.run(bouncerScript, endBouncer, program); err != nil {
		return err
	}
	return pooling.wait("postgres://" + role + "@/postgres?sslmode=disable&host=" + url.QueryEscape(pooling.dir) + "&port=" + bouncerPort)
}

// bouncerConfig has clients come in as anybody and go on as the user of base.
func bouncerConfig(base, dir string) (string, error) {
	u, err := url.Parse(base)
	if err != nil {
		return "", fmt.Errorf("%s is not a URL: %w", Variable, err)
	}
	if u.User == nil {
		return "", errors.New(Variable + " names no user")
	}
	var to strings.Builder
	word := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&to, " %s='%s'", key, strings.ReplaceAll(value, "'", "''"))
		}
	}
	host, port := u.Query().Get("host"), u.Query().Get("port")
	if h := u.Hostname(); h != "" {
		host, port = h, u.Port()
	}
	password, _ := u.User.Password()
	word("host", host)
	word("port", port)
	word("user", u.User.Username())
	word("password", password)
	return fmt.Sprintf(`[databases]
* =%s

[pgbouncer]
listen_addr =
listen_port = %s
unix_socket_dir = %s
auth_type = any
pool_mode = transaction
default_pool_size = 3
max_client_conn = 2000
ignore_startup_parameters = extra_float_digits
server_idle_timeout = 2
log_connections = 0
log_disconnections = 0
`, to.String(), bouncerPort, dir), nil
}
