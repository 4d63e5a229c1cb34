package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/casemate/casemate/host/store"
)

// listenOff is the value of Options.Listen for no listening.
const listenOff = "off"

const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 15 * time.Second
	// deafRetry is for a connection that takes LISTEN and stays silent: a pooler
	// does not become another thing soon.
	deafRetry = 5 * time.Minute
	echoWait  = 5 * time.Second
	// quiet is how long nothing arrives before the connection is asked whether it
	// is there: one that was cut off looks like one that is idle.
	quiet = 30 * time.Second
)

var (
	errDeaf      = errors.New("LISTEN is taken and nothing arrives: a pooler in transaction mode is in between; give the URL of a direct connection to listen on")
	errListenOff = errors.New("listening is off")
)

// Watch sends this host's hints, and listens for those of others on a connection
// of its own. Without one, or when it cannot hear, others' hints are lost, which
// only makes slower what polling and heartbeats find.
func (d *driver) Watch(ctx context.Context, f func(store.Hint)) error {
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() { d.sendHints(ctx) })
	if d.listenOn == nil {
		<-ctx.Done()
		return nil
	}
	pause := firstRetry
	for {
		heard, err := d.listen(ctx, f)
		if ctx.Err() != nil {
			return nil
		}
		switch {
		case errors.Is(err, errDeaf):
			pause = deafRetry
		case heard:
			pause = firstRetry
		default:
			pause = min(2*pause, lastRetry)
		}
		select {
		case <-time.After(pause/2 + mathrand.N(pause/2)):
		case <-ctx.Done():
			return nil
		}
	}
}

// listenConfig returns how to connect for listening; nil: not at all.
func listenConfig(pool *pgxpool.Config, listen string) (*pgx.ConnConfig, error) {
	switch listen {
	case listenOff:
		return nil, nil
	case "":
		config := pool.ConnConfig.Copy()
		config.OnNotification = nil
		return config, nil
	}
	config, err := pgxpool.ParseConfig(listen) // reads the settings of a pool too, to leave them aside
	if err != nil {
		return nil, fmt.Errorf("postgres: URL to listen on: %w", err)
	}
	name(config.ConnConfig)
	return config.ConnConfig, nil
}

// listen connects and reports hints until the connection breaks or ctx ends;
// heard is whether it worked for a while.
func (d *driver) listen(ctx context.Context, f func(store.Hint)) (heard bool, err error) {
	defer func() { d.heard(err) }()
	conn, err := d.connectListening(ctx)
	if err != nil {
		return false, err
	}
	defer hangUp(ctx, conn)
	d.heard(nil)
	// What was said before this moment was not heard.
	f(store.Hint{Ready: true, Canceled: d.worker.Load()})
	for {
		payload, err := next(ctx, conn, quiet)
		if errors.Is(err, errQuiet) {
			err = alive(ctx, conn)
		}
		if err != nil {
			return true, err
		}
		if h, ok := hint(payload); ok {
			f(h)
		}
	}
}

// heard notes how listening stands: nil, it works.
func (d *driver) heard(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hearing, d.listened = err, true
}

const selectChannel = `select ` + channelName

// connectListening returns a connection on which a notification arrived that was
// sent from another one.
func (d *driver) connectListening(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	var channel string
	if err := d.pool.QueryRow(ctx, selectChannel).Scan(&channel); err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, d.listenOn)
	if err != nil {
		return nil, err
	}
	if err := d.tune(ctx, conn, channel); err != nil {
		hangUp(ctx, conn)
		return nil, err
	}
	return conn, nil
}

func (d *driver) tune(ctx context.Context, conn *pgx.Conn, channel string) error {
	if _, err := conn.Exec(ctx, "listen "+pgx.Identifier{channel}.Sanitize()); err != nil {
		return err
	}
	echo := payloadEcho + rand.Text()
	if err := d.notify(ctx, []string{echo}); err != nil {
		return err
	}
	for deadline := time.Now().Add(echoWait); ; {
		payload, err := next(ctx, conn, time.Until(deadline))
		switch {
		case errors.Is(err, errQuiet):
			_, _ = conn.Exec(ctx, "unlisten *") // the pooler may give the session to others
			return errDeaf
		case err != nil:
			return err
		case payload == echo:
			return nil
		}
	}
}

var errQuiet = errors.New("nothing arrived")

// next returns the next notification, or errQuiet when there is none for so long.
func next(ctx context.Context, conn *pgx.Conn, wait time.Duration) (payload string, err error) {
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	n, err := conn.WaitForNotification(limited)
	switch {
	case err == nil:
		return n.Payload, nil
	case ctx.Err() == nil && limited.Err() != nil && (pgconn.Timeout(err) || errors.Is(err, context.DeadlineExceeded)) && !conn.IsClosed():
		return "", errQuiet
	}
	return "", err
}

func alive(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return conn.Ping(ctx)
}

// hangUp closes a connection, without waiting for one that is cut off.
func hangUp(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// hearHints says why others' hints do not arrive; nil: they do. Where Watch does
// not run, it tries.
func (d *driver) hearHints(ctx context.Context) error {
	if d.listenOn == nil {
		return errListenOff
	}
	d.mu.Lock()
	listened, err := d.listened, d.hearing
	d.mu.Unlock()
	if listened {
		return err
	}
	conn, err := d.connectListening(ctx)
	if err == nil {
		hangUp(ctx, conn)
	}
	return err
}
