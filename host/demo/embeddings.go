package demo

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"hash/fnv"
	"math"
	"net/http"
)

// The lengths of a vector.
const (
	defaultDimensions = 16
	maxDimensions     = 4096
	maxInputs         = 2048
)

type embeddingsRequest struct {
	Model      string          `json:"model"`
	Input      json.RawMessage `json:"input"`
	Dimensions int             `json:"dimensions"`
	Format     string          `json:"encoding_format"`
}

// inputs returns each text or token list as bytes; nil if there is none.
func (q embeddingsRequest) inputs() [][]byte {
	var one string
	if json.Unmarshal(q.Input, &one) == nil {
		return [][]byte{[]byte(one)}
	}
	var tokens []int
	if json.Unmarshal(q.Input, &tokens) == nil && len(tokens) > 0 {
		return [][]byte{q.Input}
	}
	var texts []string
	if json.Unmarshal(q.Input, &texts) == nil {
		all := make([][]byte, len(texts))
		for i, t := range texts {
			all[i] = []byte(t)
		}
		return all
	}
	var lists [][]int
	if json.Unmarshal(q.Input, &lists) != nil {
		return nil
	}
	var raw []json.RawMessage
	if json.Unmarshal(q.Input, &raw) != nil {
		return nil
	}
	all := make([][]byte, len(raw))
	for i, r := range raw {
		all[i] = r
	}
	return all
}

// serveEmbeddings answers with unit vectors that follow from the inputs alone.
func serveEmbeddings(o *writer, r Request, _ Turn) {
	var q embeddingsRequest
	if err := json.Unmarshal(r.Body, &q); err != nil {
		writeError(o.w, http.StatusBadRequest, "the body is not an embeddings request")
		return
	}
	inputs := q.inputs()
	if len(inputs) == 0 || len(inputs) > maxInputs || q.Dimensions < 0 || q.Dimensions > maxDimensions {
		writeError(o.w, http.StatusBadRequest, "no input, too many inputs or too many dimensions")
		return
	}
	if q.Dimensions == 0 {
		q.Dimensions = defaultDimensions
	}
	type item struct {
		Object    string `json:"object"`
		Index     int    `json:"index"`
		Embedding any    `json:"embedding"`
	}
	var tokens int64
	data := make([]item, len(inputs))
	for i, in := range inputs {
		v := vector(in, q.Dimensions)
		data[i] = item{Object: "embedding", Index: i, Embedding: v}
		if q.Format == "base64" {
			data[i].Embedding = encode(v)
		}
		tokens += max(1, words(string(in)))
	}
	o.json(map[string]any{
		"object": "list", "data": data, "model": q.Model,
		"usage": map[string]int64{"prompt_tokens": tokens, "total_tokens": tokens},
	})
}

// vector returns a unit vector that is a stream of the hash of b.
func vector(b []byte, dimensions int) []float32 {
	h := fnv.New64a()
	_, _ = h.Write(b) // a hash never fails
	x, sum := h.Sum64(), 0.0
	raw := make([]float64, dimensions)
	for i := range raw {
		x += 0x9e3779b97f4a7c15
		z := (x ^ x>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		raw[i] = float64(int64(z^z>>31)) / (1 << 63)
		sum += raw[i] * raw[i]
	}
	v := make([]float32, dimensions)
	for i := range v {
		v[i] = float32(raw[i] / math.Sqrt(sum))
	}
	return v
}

// encode returns v as little-endian float32s in base64.
func encode(v []float32) string {
	b := make([]byte, 0, 4*len(v))
	for _, f := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}
	return base64.StdEncoding.EncodeToString(b)
}

// serveModels lists the one model.
func serveModels(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"object": "list", "data": []map[string]any{ // the client may be gone
		{"id": "demo", "object": "model", "created": created, "owned_by": "casemate"},
	}})
}
