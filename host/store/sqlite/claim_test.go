package sqlite

import (
	"database/sql"
	"slices"
	"testing"
)

func TestAllot(t *testing.T) {
	lane := func(vtime, weight float64, limit ...int64) room {
		r := room{vtime: vtime, weight: weight}
		if len(limit) > 0 {
			r.limit = sql.NullInt64{Int64: limit[0], Valid: true}
		}
		return r
	}
	for name, c := range map[string]struct {
		rooms []room
		n     int
		want  []int
	}{
		"equal":             {[]room{lane(0, 1), lane(0, 1), lane(0, 1)}, 6, []int{2, 2, 2}},
		"first of equals":   {[]room{lane(0, 1), lane(0, 1)}, 3, []int{2, 1}},
		"by weight":         {[]room{lane(0, 1), lane(0, 3)}, 8, []int{2, 6}},
		"who had less":      {[]room{lane(0, 1), lane(2, 1)}, 4, []int{3, 1}},
		"far behind":        {[]room{lane(0, 1), lane(9, 1)}, 4, []int{4, 0}},
		"capped":            {[]room{lane(0, 1, 1), lane(0, 1)}, 4, []int{1, 3}},
		"nobody has room":   {[]room{lane(0, 1, 1), lane(0, 1, 2)}, 9, []int{1, 2}},
		"none":              {nil, 3, []int{}},
		"small shares":      {[]room{lane(0, 0.5), lane(0, 1)}, 3, []int{1, 2}},
		"already at a tag":  {[]room{lane(1, 1), lane(1.5, 1)}, 2, []int{1, 1}},
		"nothing asked for": {[]room{lane(0, 1)}, 0, []int{0}},
	} {
		if got := allot(c.rooms, c.n); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}
