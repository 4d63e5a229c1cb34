package response_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/response"
)

// permutations returns all orders of s.
func permutations(s []string) [][]string {
	if len(s) < 2 {
		return [][]string{s}
	}
	var all [][]string
	for i := range s {
		rest := slices.Delete(slices.Clone(s), i, i+1)
		for _, p := range permutations(rest) {
			all = append(all, append([]string{s[i]}, p...))
		}
	}
	return all
}

// The order in which siblings end changes neither what the model is told nor
// one byte of the stream, wherever among them one fails.
func TestSiblingOrderChangesNothing(t *testing.T) {
	turn := "text \"look\"\ncall 0 call_a a {}\ncall 1 call_l lookup {}\ncall 2 call_b b {}\ncall 3 call_c c {}\nfinish tool_calls 1 1"
	for _, failing := range []string{"none", "call_a", "call_b", "call_c"} {
		for _, client := range []bool{true, false} {
			files := map[string]string{
				"request.json":    `{"model":"m","stream":true,"input":"hi","tools":[{"type":"function","name":"lookup"}]}`,
				"tools":           "a p a pure\nb p b idempotent\nc p c once\n",
				"model/1":         turn,
				"model/2":         "text \"done\"\nfinish stop 1 1",
				"tool/" + failing: "error guest_error permanent",
			}
			if !client {
				files["model/1"] = strings.Replace(turn, "call 1 call_l lookup {}\n", "", 1)
			}
			first := newSim(t, files)
			first.order = []string{"call_a", "call_b", "call_c"}
			want := first.run().out()
			if err := response.Validate(first.events); err != nil {
				t.Error(err)
			}
			for _, order := range permutations(first.order) {
				s := newSim(t, files)
				s.order = order
				got := s.run().out()
				got["plans"], want["plans"] = "", ""
				sameOut(t, fmt.Sprintf("%s fails, order %v", failing, order), got, want)
			}
		}
	}
}

// What a model writes after its calls began comes out once, behind the first of
// them, wherever a restored stream takes over; white space alone never does.
func TestLateTextIsRestored(t *testing.T) {
	for _, tc := range []struct{ first, second, want string }{
		{`text " \n"`, `text "late"`, "one|two|late|end"},
		{`text " \n"`, ``, "one|two|end"},
		{`text "late"`, `text " "`, "one|late|two|end"},
		{`refuse "no"`, `text "more"`, "one|no|two|more|end"},
		{``, "text \"more\"\nrefuse \", no\"", "one|two|more, no|end"},
		{``, `refuse " "`, "one|two|end"},
	} {
		files := map[string]string{
			"request.json": `{"model":"m","stream":true,"input":"hi"}`, "tools": "a p a pure\n", "order": "c1 c2 c3 c4",
			"model/1": "text \"one\"\ncall 0 c1 a {}\n" + tc.first + "\ncall 1 c2 a {}\nfinish tool_calls 1 1",
			// The first call to be named is not the first to begin.
			"model/2": "text \"two\"\ncall 0 c3 - {}\ncall 1 c4 a {\"n\":1}\n" + tc.second + "\ncall 0 c3 a -\nfinish tool_calls 1 1",
			"model/3": "crash", "model/4": "text \"end\"\nfinish stop 1 1",
			"tool/c1/1": "crash", "tool/c4/1": "crash",
		}
		var live map[string]string
		for _, restore := range []bool{false, true} {
			s := newSim(t, files)
			s.restore = restore
			s.run()
			if restore {
				sameOut(t, "restored", s.out(), live)
			}
			live = s.out()
			if want := `"arguments":"{}","output":"result of c3"`; !strings.Contains(live["final"], want) {
				t.Errorf("restore %v: got %s, want %s", restore, live["final"], want)
			}
			if err := response.Validate(s.events); err != nil {
				t.Errorf("%+v: %v", tc, err)
			}
			var o struct {
				Output []struct{ Content []struct{ Text string } }
			}
			if err := json.Unmarshal(s.final, &o); err != nil {
				t.Fatal(err)
			}
			var texts []string
			for _, it := range o.Output {
				for _, c := range it.Content {
					texts = append(texts, c.Text)
				}
			}
			if got := strings.Join(texts, "|"); got != tc.want {
				t.Errorf("restore %v, %q then %q: got %q, want %q", restore, tc.first, tc.second, got, tc.want)
			}
		}
	}
}

// randomScript writes a script of up to 12 model turns over five tools.
func randomScript(r *rand.Rand) map[string]string {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	files := map[string]string{
		"request.json": fmt.Sprintf(`{"model":"m","stream":%s,"input":"hi"%s,"tools":[{"type":"function","name":"lookup"}]}`,
			pick("true", "false"), pick("", `,"max_tool_calls":2`, `,"max_output_tokens":30`, `,"background":true`)),
		"tools":     "a p a pure\nb p b idempotent\nc p c once\nd p d none\n",
		"caps.json": pick(`{}`, `{"FanOut":1}`, `{"FanOut":2,"Steps":9}`, `{"ToolCalls":4}`, `{"Tokens":40}`),
		"policy":    "0/1 1/1 1/2 2/1 3/1 4/1 5/1 6/1",
	}
	for turn := range 12 {
		var b strings.Builder
		if r.IntN(3) == 0 {
			b.WriteString("reason \"hm\"\n")
		}
		if r.IntN(2) == 0 {
			b.WriteString("text \"some \"\ntext \"words\"\n")
		}
		for i := range r.IntN(5) {
			id := fmt.Sprintf("t%dc%d", turn, i)
			fmt.Fprintf(&b, "call %d %s %s %s\n", i, id, pick("a", "b", "c", "d", "lookup", "nothing", "-"), pick("{}", `{"n":1}`, "-", `{"n":`))
			files["tool/"+id+"/1"] = pick("ok", "effect\nok", "ok", "crash", "effect\ncrash", "effect\nerror guest_trap trap", "error guest_trap trap", "error guest_error permanent")
			files["order"] += " " + id
		}
		if r.IntN(4) == 0 {
			b.WriteString(pick("text \"late\"\n", "text \" \\n\"\n", "refuse \"no\"\n", "text \"late\"\nrefuse \" no\"\n", "refuse \" \"\n"))
		}
		b.WriteString(pick("crash", "fail upstream_network 0", "", "finish length 2 1") + "\n")
		if r.IntN(3) > 0 {
			b.Reset()
			late := pick("", "", "text \"more\"\n", "text \" \"\n", "refuse \"no\"\n")
			fmt.Fprintf(&b, "text \"t\"\ncall 0 t%dc0 %s {}\n%sfinish tool_calls 2 3\n", turn, pick("a", "b", "c"), late)
		}
		files[fmt.Sprintf("model/%d", turn+1)] = b.String()
	}
	order := strings.Fields(files["order"])
	r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	files["order"] = strings.Join(order, " ")
	files["model/*"] = "text \"end\"\nfinish stop 1 1"
	return files
}

// Whatever the model, the tools, the policy and the crashes do: the stream is
// valid, the ordinals have no gap, a once tool that began an effect is not run
// again, and a host that restores from the log at every boundary does the same.
func TestRandomScripts(t *testing.T) {
	repeated := 0
	for seed := range uint64(120) {
		files := randomScript(rand.New(rand.NewPCG(seed, 1)))
		s := newSim(t, files).run()
		if err := response.Validate(s.events); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		slices.SortFunc(s.steps, func(a, b response.Step) int { return a.Ordinal - b.Ordinal })
		for i, st := range s.steps {
			if st.Ordinal != i {
				t.Errorf("seed %d: ordinal %d at place %d", seed, st.Ordinal, i)
			}
			first := files["tool/"+st.CallID+"/1"]
			if st.Kind == response.ToolCall && st.Effects == "once" && st.Tries > 1 {
				repeated++
				if strings.HasPrefix(first, "effect") {
					t.Errorf("seed %d: once step %s began %d times and an effect the first time", seed, st.Key(), st.Tries)
				}
			}
		}
		again := newSim(t, files)
		again.restore = true
		sameOut(t, fmt.Sprintf("seed %d restored", seed), again.run().out(), s.out())
		if t.Failed() {
			return
		}
	}
	if repeated == 0 {
		t.Error("no once step without an effect was tried again")
	}
}
