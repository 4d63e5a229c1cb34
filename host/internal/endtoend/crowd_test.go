package endtoend_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/queue"
)

// shape is a way to ask.
type shape struct {
	name   string
	share  int // of all requests, in percent
	path   string
	fields string // of the body, but for model and question
	tool   bool   // ask for something that needs a tool
}

const (
	responses   = "/v1/responses"
	completions = "/v1/chat/completions"
)

var shapes = []shape{
	{"background with a tool", 36, responses, `"background":true`, true},
	{"background", 14, responses, `"background":true`, false},
	{"flex", 10, responses, `"service_tier":"flex"`, true},
	{"stored", 8, responses, ``, true},
	{"stored stream", 7, responses, `"stream":true`, false},
	{"unstored stream", 5, responses, `"stream":true,"store":false`, true},
	{"chat", 12, completions, ``, false},
	{"chat stream", 8, completions, `"stream":true`, false},
}

func (s shape) background() bool { return strings.Contains(s.fields, `"background":true`) }

func (s shape) stream() bool { return strings.Contains(s.fields, `"stream":true`) }

// body returns the request's body.
func (s shape) body(model string, n int) []byte {
	question := fmt.Sprintf("question %d", n)
	if s.tool {
		question += ", use the tool"
	}
	fields := s.fields
	if fields != "" {
		fields = "," + fields
	}
	if s.path == completions {
		return fmt.Appendf(nil, `{"model":%q,"messages":[{"role":"user","content":%q}]%s}`, model, question, fields)
	}
	return fmt.Appendf(nil, `{"model":%q,"input":%q%s}`, model, question, fields)
}

// answered is the Script of the other end: it calls the tool where that is
// wanted, and names the call that answered.
func answered(n int, req demo.Request) demo.Turn {
	if bytes.Contains(req.Body, []byte("use the tool")) && len(toolOutputs(req.Body)) == 0 {
		return demo.Turn{Calls: []demo.Call{{ID: "c1", Name: "wait_again", Arguments: "{}"}}, ChunkRunes: 64}
	}
	return demo.Turn{Text: fmt.Sprintf("answer-%d-", n), ChunkRunes: 64}
}

var (
	answerOf = regexp.MustCompile(`answer-(\d+)-`)
	idOf     = regexp.MustCompile(`resp_([0-9a-f]{32})`)
)

// asked is one request as its client saw it.
type asked struct {
	n        int
	shape    shape
	tenant   string
	id       string      // "" if the client never learnt it
	told     queue.State // that it ended so; born: it was told nothing
	answer   int         // the call that it was answered with; -1: none
	left     bool        // the client went away
	canceled bool        // a cancel was answered with canceled
}

// member is one tenant and the model that it asks.
type member struct{ tenant, key, model string }

// crowd asks a fleet for answers, some of which it does not wait for.
type crowd struct {
	r       *rig
	client  *http.Client
	members []member
	seed    uint64
	hosts   func(pick int) string // the URL of a host that is up
	open    func() (int, error)   // requests that have not ended

	mu    sync.Mutex
	all   []asked
	turns map[string]int // HTTP statuses, for the log
}

// most that has not ended when more is asked.
const mostOpen = 400

// ask sends total requests, evenly over the time given, and returns when each
// was answered or given up.
func (c *crowd) ask(total int, over time.Duration) {
	const clients = 48
	next := make(chan int)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for n := range next {
				a := c.one(n)
				c.mu.Lock()
				c.all = append(c.all, a)
				c.mu.Unlock()
			}
		})
	}
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for sent, room := 0, 0; sent < total; {
		now := <-tick.C
		if now.Sub(began) < time.Duration(sent)*over/time.Duration(total) {
			continue
		}
		if room <= 0 {
			n, err := c.open()
			if err != nil {
				n = mostOpen - clients // it is away: the hosts refuse what comes
			}
			room = min(mostOpen-n, clients)
		}
		for ; room > 0 && sent < total && now.Sub(began) >= time.Duration(sent)*over/time.Duration(total); room-- {
			next <- sent
			sent++
		}
	}
	close(next)
	wg.Wait()
}

// one asks once. Everything about it follows from the seed and n.
func (c *crowd) one(n int) asked {
	rng := rand.New(rand.NewPCG(c.seed, uint64(n)))
	m := c.members[rng.IntN(len(c.members))]
	a := asked{n: n, shape: pick(rng), tenant: m.tenant, told: born, answer: -1}
	host := c.hosts(rng.IntN(1 << 20))
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	impatient := rng.IntN(100) < 8
	if impatient && !a.shape.background() {
		var leave context.CancelFunc
		ctx, leave = context.WithTimeout(ctx, time.Duration(rng.IntN(150))*time.Millisecond)
		defer leave()
	}
	status, body, err := c.send(ctx, host+a.shape.path, m.key, a.shape.body(m.model, n))
	c.count(a.shape, status, err)
	again := time.NewTicker(500 * time.Millisecond)
	defer again.Stop()
	for !impatient && refusedForNow(status) {
		select {
		case <-ctx.Done():
		case <-again.C:
		}
		status, body, err = c.send(ctx, c.hosts(rng.IntN(1<<20))+a.shape.path, m.key, a.shape.body(m.model, n))
		c.count(a.shape, status, err)
	}
	a.left = err != nil
	c.read(&a, status, body)
	if a.shape.background() && impatient && a.id != "" {
		c.cancel(&a, c.hosts(rng.IntN(1<<20)), m.key, time.Duration(rng.IntN(300))*time.Millisecond)
	}
	return a
}

// refusedForNow reports whether nothing was accepted and the client should come
// again.
func refusedForNow(status int) bool {
	return status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests
}

func pick(rng *rand.Rand) shape {
	at := rng.IntN(100)
	for _, s := range shapes {
		if at -= s.share; at < 0 {
			return s
		}
	}
	panic("the shares do not add up to 100")
}

func (c *crowd) count(s shape, status int, err error) {
	what := s.name + " " + strconv.Itoa(status)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		what += " left"
	case err != nil:
		what += " broken"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turns[what]++
}

// send posts a body; status is 0 when no answer began.
func (c *crowd) send(ctx context.Context, url, key string, body []byte) (status int, answer []byte, err error) {
	return c.do(ctx, http.MethodPost, url, key, body)
}

func (c *crowd) do(ctx context.Context, method, url, key string, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+key)
	res, err := c.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(res.Body)
	return res.StatusCode, answer, err
}

// read notes what an answer, whole or not, told the client.
func (c *crowd) read(a *asked, status int, body []byte) {
	if m := idOf.FindSubmatch(body); m != nil && a.shape.path == responses {
		a.id = string(m[1])
	}
	if a.shape.background() || status != http.StatusOK {
		return
	}
	var object struct {
		Status  string
		Choices []any
	}
	switch whole := json.Unmarshal(body, &object) == nil; {
	case a.shape.stream() && a.shape.path == completions && bytes.Contains(body, []byte("data: [DONE]")),
		a.shape.stream() && bytes.Contains(body, []byte("event: response.completed")),
		whole && (object.Status == "completed" || len(object.Choices) > 0):
		a.told = queue.Completed
	case a.shape.stream() && bytes.Contains(body, []byte("event: response.failed")), whole && object.Status == "failed":
		a.told = queue.Failed
	}
	if m := answerOf.FindSubmatch(body); m != nil && a.told == queue.Completed {
		a.answer, _ = strconv.Atoi(string(m[1]))
	}
}

// cancel cancels a background response, whatever becomes of the attempt.
func (c *crowd) cancel(a *asked, host, key string, after time.Duration) {
	timer := time.NewTimer(after)
	defer timer.Stop()
	<-timer.C
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	status, body, err := c.send(ctx, host+responses+"/resp_"+a.id+"/cancel", key, nil)
	var object struct{ Status string }
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &object) != nil {
		return
	}
	switch object.Status {
	case "completed":
		a.told = queue.Completed
	case "cancelled":
		a.told, a.canceled = queue.Canceled, true
	}
}

// lookAgain asks for some of the responses that nobody waited for, once they
// have ended.
func (c *crowd) lookAgain() {
	c.r.Helper()
	const one = 10 // of so many
	for i := range c.all {
		a := &c.all[i]
		if a.id == "" || !a.shape.background() || a.told != born || a.n%one != 0 {
			continue
		}
		status, body, err := c.do(c.r.Context(), http.MethodGet, c.hosts(a.n)+responses+"/resp_"+a.id, c.keyOf(a.tenant), nil)
		var object struct{ Status string }
		if err != nil || status != http.StatusOK || json.Unmarshal(body, &object) != nil {
			c.r.Errorf("look at %s: %d %s %v", a.id, status, body, err)
			continue
		}
		a.told = map[string]queue.State{"completed": queue.Completed, "failed": queue.Failed, "cancelled": queue.Canceled}[object.Status]
		if m := answerOf.FindSubmatch(body); m != nil && a.told == queue.Completed {
			a.answer, _ = strconv.Atoi(string(m[1]))
		}
	}
}

func (c *crowd) keyOf(tenant string) string {
	i := slices.IndexFunc(c.members, func(m member) bool { return m.tenant == tenant })
	return c.members[i].key
}

// check holds what the clients were told against what the ledger says.
func (c *crowd) check(l *ledger, calls []call) {
	c.r.Helper()
	byNumber := map[int]call{}
	for _, k := range calls {
		byNumber[k.n] = k
	}
	ids := map[string]bool{}
	known, ended := 0, 0
	for _, a := range c.all {
		id := a.id
		if a.answer >= 0 {
			id = byNumber[a.answer].request()
			ended++
		}
		if a.id != "" && id != a.id {
			c.r.Errorf("%+v: answered with a call of request %s", a, id)
		}
		if id == "" {
			continue
		}
		known++
		if ids[id] {
			c.r.Errorf("%+v: the id was given out twice", a)
		}
		ids[id] = true
		f := l.lives[id]
		if f == nil {
			c.r.Errorf("%+v: accepted, and not in the database", a)
			continue
		}
		if a.told != born && a.told != f.state {
			l.errorf(id, "the client was told %s; it is %s", a.told, f.state)
		}
	}
	c.r.Logf("%d asked, %d ids known to clients, %d answers read; statuses %v", len(c.all), known, ended, c.turns)
}
