package demo

import (
	"encoding/json"
	"regexp"
	"strings"
)

// Model is the Script of the demo model. It looks at the last user message and
// at what came after it:
//
//   - after tool results, a sentence that holds them;
//   - each line "call NAME {json}" is a tool call, several lines are parallel
//     calls (one a turn with "parallel_tool_calls": false). The tool need not be
//     on offer and the JSON need not be whole: that is how a host's answers to
//     such calls are seen;
//   - arithmetic, with a tool "calculator" on offer, is a call of it with
//     {"expression": …};
//   - everything else is answered plainly.
//
// With "tool_choice": "none" it calls nothing. A limit of output tokens cuts
// the text after so many words, with finish reason "length".
func Model(_ int, r Request) Turn {
	q, ok := r.read()
	if !ok {
		return Turn{} // the server refuses the body
	}
	said, results := lastExchange(q.Messages)
	mayCall := string(q.ToolChoice) != `"none"`
	if calls := linesOfCalls(said); mayCall && len(calls) > 0 {
		if q.ParallelToolCalls != nil && !*q.ParallelToolCalls {
			calls = calls[min(len(results), len(calls)):]
			calls = calls[:min(1, len(calls))]
		} else if len(results) > 0 {
			calls = nil
		}
		if len(calls) > 0 {
			return Turn{Calls: calls}
		}
	}
	if len(results) > 0 {
		return limited(q, "The tools answered: "+strings.Join(results, "; ")+".")
	}
	if tool, expr := calculatorOf(q.Tools), arithmetic(said); mayCall && tool != "" && expr != "" {
		args, err := json.Marshal(map[string]string{"expression": expr})
		if err == nil {
			return Turn{Calls: []Call{{Name: tool, Arguments: string(args)}}}
		}
	}
	if said = strings.TrimSpace(said); said == "" {
		return limited(q, "I am the demo model. Say something.")
	}
	return limited(q, "I am the demo model. You said: "+said)
}

// lastExchange returns the text of the last user message and the texts of the
// tool messages after it.
func lastExchange(messages []message) (said string, results []string) {
	for _, m := range messages {
		switch m.Role {
		case "user":
			said, results = m.text(), nil
		case "tool":
			results = append(results, m.text())
		}
	}
	return said, results
}

var callLine = regexp.MustCompile(`^\s*call\s+([A-Za-z0-9_-]{1,64})\s*(\{.*)$`)

func linesOfCalls(said string) []Call {
	var calls []Call
	for line := range strings.Lines(said) {
		if m := callLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			calls = append(calls, Call{Name: m[1], Arguments: m[2]})
		}
	}
	return calls
}

// calculatorOf returns the name under which the calculator is on offer: its
// own, or one prefixed because of a clash.
func calculatorOf(tools []toolOffer) string {
	for _, t := range tools {
		if name := t.Function.Name; name == "calculator" || strings.HasSuffix(name, "__calculator") {
			return name
		}
	}
	return ""
}

var (
	spoken = strings.NewReplacer(
		"multiplied by", "*", "divided by", "/", "times", "*", "plus", "+", "minus", "-", "×", "*", "÷", "/", "−", "-",
	)
	thousands  = regexp.MustCompile(`(\d),(\d{3})\b`)
	expression = regexp.MustCompile(`[-(]*\d[\d.]*(?:[\s()]*[-+*/%^][\s()]*-?[\s(]*\d[\d.]*)+[\s)]*`)
	date       = regexp.MustCompile(`^\d{4}-\d{1,2}-\d{1,2}$`)
)

// arithmetic returns the first expression in what the user said, or "".
func arithmetic(said string) string {
	for _, e := range expression.FindAllString(thousands.ReplaceAllString(spoken.Replace(said), "$1$2"), -1) {
		e = strings.TrimSpace(strings.TrimRight(e, ". "))
		for strings.Count(e, "(") > strings.Count(e, ")") && strings.HasPrefix(e, "(") {
			e = e[1:]
		}
		for strings.Count(e, ")") > strings.Count(e, "(") && strings.HasSuffix(e, ")") {
			e = e[:len(e)-1]
		}
		if !date.MatchString(e) {
			return e
		}
	}
	return ""
}

// limited returns text, cut to the output tokens that the request allows.
func limited(q request, text string) Turn {
	limit := q.MaxOutputTokens
	if limit <= 0 {
		limit = q.MaxTokens
	}
	if fields := strings.Fields(text); limit > 0 && len(fields) > limit {
		return Turn{Text: strings.Join(fields[:limit], " "), Finish: "length"}
	}
	return Turn{Text: text}
}
