package testdb

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	startTimeout = time.Minute
	lastWords    = 2000 // bytes of a log that are shown
)

// process is a server program in a temporary directory of its own. It ends when
// this process has ended, for whatever reason, and then the directory goes.
type process struct {
	dir    string
	as     *syscall.Credential // who runs it; nil: this process's user
	watch  *exec.Cmd
	orders io.WriteCloser // the program stops when this end of a pipe is closed
	done   *bufio.Reader  // a line for each order
}

// watchScript follows the definition of start, which runs the program in the
// background. A line of its standard input is "START" or a signal that ends the
// program. When the input ends, which it does with this process, it ends the
// program by the signal in $end and removes what is left. It has a process group
// of its own, so an interrupt from a terminal does not reach it.
const watchScript = `
start "$@"
program=$!
while read -r order; do
	case $order in
	START) start "$@"; program=$! ;;
	*) kill "-$order" $program; wait $program ;;
	esac
	echo done
done
kill "-$end" $program 2>/dev/null
wait $program
rm -rf "$PWD"`

// makeDir makes the directory. It is somebody else's when this process is
// root's, since the programs refuse to run as root.
func (p *process) makeDir(name string) (err error) {
	// Not the directory for temporary files: it may be closed to the user that
	// runs the program, and a socket's path has to be short.
	if p.dir, err = os.MkdirTemp("/tmp", "casemate-"+name+"-"); err != nil || os.Getuid() != 0 {
		return err
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return fmt.Errorf("no user to run it as: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return err
	}
	p.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return os.Chown(p.dir, int(uid), int(gid))
}

// command is one that runs in the directory.
func (p *process) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Dir = p.dir
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: p.as}
	return c
}

// run runs the program that a shell function named start starts with args in the
// directory; end is the signal that ends it at last.
func (p *process) run(start, end string, args ...string) error {
	script := "end=" + end + "\n" + start + watchScript
	watch := p.command("sh", append([]string{"-c", script, "sh"}, args...)...)
	orders, err := watch.StdinPipe()
	if err != nil {
		return err
	}
	out, err := watch.StdoutPipe()
	if err != nil {
		return err
	}
	if err := watch.Start(); err != nil {
		return err
	}
	p.watch, p.orders, p.done = watch, orders, bufio.NewReader(out)
	return nil
}

// order returns when the order was carried out.
func (p *process) order(what string) error {
	if _, err := io.WriteString(p.orders, what+"\n"); err != nil {
		return err
	}
	_, err := p.done.ReadString('\n')
	return err
}

// wait returns when the database at url answers.
func (p *process) wait(url string) error {
	deadline := time.Now().Add(startTimeout)
	for {
		err := execute(url, "select 1")
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(p.dir, "log"))
			return fmt.Errorf("it does not answer: %w: %s", err, log[max(0, len(log)-lastWords):])
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// stop ends the program, if there is one, and removes its directory.
func (p *process) stop() {
	if p.watch != nil {
		p.orders.Close()
		_ = p.watch.Wait() // it ends by the signal that it was asked to send
		p.watch = nil
	}
	if p.dir != "" {
		_ = os.RemoveAll(p.dir) // the watching script removes it as well
	}
}
