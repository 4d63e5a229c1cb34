package loop_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/translate"
	"github.com/casemate/casemate/host/upstream"
	"github.com/casemate/casemate/sdk/abi"
)

// mixed is an upstream whose target a/m is of kind responses and whose others
// are of kind chat.
type mixed struct{ scripted }

func (m *mixed) Kind(target string) upstream.Kind {
	if target == "a/m" {
		return upstream.Responses
	}
	return upstream.Chat
}

// A call that a kind of upstream has no words for goes to targets of the other
// one; where there is none it is the client's mistake.
func TestCallerAsksWhoCanServe(t *testing.T) {
	cannot := &translate.Unsupported{Param: "stop", Code: "unsupported_parameter", Message: "no stop"}
	refuses := func(kind upstream.Kind, err error) func(upstream.Kind) error {
		return func(k upstream.Kind) error {
			if k == kind {
				return err
			}
			return nil
		}
	}
	for _, tt := range []struct {
		name    string
		targets []string
		serves  func(upstream.Kind) error // by candidates
		says    func(upstream.Kind) error // when it is called
		calls   []string
		status  int // 0: it is served
		class   queue.Class
		asked   bool // the policy was asked
	}{
		{"both can", []string{"a/m", "b/m"}, nil, nil, []string{"a/m"}, 0, "", true},
		{"one cannot", []string{"a/m", "b/m"}, refuses(upstream.Responses, cannot), nil, []string{"b/m"}, 0, "", true},
		{"none can", []string{"a/m"}, refuses(upstream.Responses, cannot), nil, nil, 400, queue.UpstreamStatus, false},
		{"one cannot when called", []string{"a/m", "b/m"}, nil, refuses(upstream.Responses, cannot), []string{"b/m"}, 0, "", true},
		{"none can when called", []string{"b/m"}, nil, refuses(upstream.Chat, cannot), nil, 400, queue.UpstreamStatus, true},
		{"a mistake of the host", []string{"a/m", "b/m"}, nil, refuses(upstream.Responses, errors.New("broken")), nil, 500, queue.HostError, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := &mixed{scripted{fails: map[string]*upstream.Error{}}}
			for _, target := range tt.targets {
				up.fails[target] = nil
			}
			c := &loop.Caller{Policy: &fakePolicy{}, Upstream: up}
			res := c.Do(t.Context(), loop.UpstreamCall{
				Info: abi.RequestInfo{Model: "m"}, Serves: tt.serves,
				Say: func(k upstream.Kind) (loop.Said, error) {
					if tt.says != nil {
						if err := tt.says(k); err != nil {
							return loop.Said{}, err
						}
					}
					return said(k)
				},
			})
			var calls []string
			for _, call := range up.calls {
				calls = append(calls, call.Target)
			}
			if !slices.Equal(calls, tt.calls) || (res.Decision.Kind != "") != tt.asked {
				t.Errorf("called %q, decision %q; want %q", calls, res.Decision.Kind, tt.calls)
			}
			switch f := res.Failure; {
			case tt.status == 0:
				if f != nil {
					t.Errorf("got %+v, want it served", f)
				}
			case f == nil || f.Status != tt.status || f.Class != tt.class:
				t.Errorf("got %+v, want %s %d", f, tt.class, tt.status)
			case tt.status == 400 && (f.Param != "stop" || f.Code != "unsupported_parameter" || f.Message != "no stop"):
				t.Errorf("got %+v, want what is unsupported", f)
			}
		})
	}
}
