package guest

import (
	"encoding/json"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/casemate/casemate/sdk/abi"
)

// The most bytes of one request frame, and of its head.
const (
	maxRequest = 1 << 20
	maxHead    = 256 << 10
)

// Call implements Host. It does not look at the time that a value is kept for.
func (f *Fake) Call(op string, request []byte) ([]byte, error) {
	run, ok := fakeOps[op]
	switch {
	case !ok:
		return nil, abi.ENOSYS
	case !f.Granted[op]:
		return nil, abi.EPERM
	case len(request) > maxRequest:
		return nil, abi.E2BIG
	}
	head, body, err := abi.DecodeFrame(request)
	switch {
	case err != nil:
		return nil, abi.EINVAL
	case len(head) > maxHead:
		return nil, abi.E2BIG
	}
	reply, body := run(f, head, body)
	text, err := json.Marshal(reply)
	if err != nil {
		return nil, abi.EIO
	}
	return abi.EncodeFrame(text, body), nil
}

var fakeOps = map[string]func(f *Fake, head, body []byte) (reply any, out []byte){
	abi.OpKVGet:     (*Fake).kvGet,
	abi.OpKVPut:     (*Fake).kvPut,
	abi.OpKVDelete:  (*Fake).kvDelete,
	abi.OpKVList:    (*Fake).kvList,
	abi.OpHTTPFetch: (*Fake).httpFetch,
	abi.OpToolCall:  (*Fake).toolCall,
	abi.OpTimeNow:   (*Fake).timeNow,
	abi.OpRand:      (*Fake).rand,
}

func plain(status int, code string) (any, []byte) {
	return abi.ReplyHead{Status: status, Error: code}, nil
}

func badRequest() (any, []byte) { return plain(abi.StatusBadRequest, abi.ErrorRequest) }

func (f *Fake) kvGet(head, _ []byte) (any, []byte) {
	h, bad := kvHead(head)
	if bad != "" {
		return plain(abi.StatusBadRequest, bad)
	}
	value, ok := f.KV[h.Key]
	if !ok {
		return plain(abi.StatusNoEntry, "")
	}
	return abi.KVReply{ReplyHead: abi.ReplyHead{Status: abi.StatusOK}, ETag: etag(value)}, value
}

func (f *Fake) kvPut(head, body []byte) (any, []byte) {
	h, bad := kvHead(head)
	switch {
	case bad != "":
		return plain(abi.StatusBadRequest, bad)
	case h.TTLMS < 0 || h.TTLMS > abi.MaxKVTTLMS:
		return plain(abi.StatusBadRequest, abi.ErrorTTL)
	case len(body) > abi.MaxKVValue:
		return plain(abi.StatusTooLarge, abi.ErrorValue)
	}
	return f.kvWrite(h, func() { f.KV[h.Key] = append([]byte{}, body...) }, len(body))
}

func (f *Fake) kvDelete(head, _ []byte) (any, []byte) {
	h, bad := kvHead(head)
	if bad != "" {
		return plain(abi.StatusBadRequest, bad)
	}
	return f.kvWrite(h, func() { delete(f.KV, h.Key) }, 0)
}

// kvWrite makes one write if its condition holds and the call may write more.
func (f *Fake) kvWrite(h abi.KVHead, write func(), size int) (any, []byte) {
	size += len(h.Key)
	if f.puts >= abi.MaxKVPuts || f.putSize+size > abi.MaxKVPutBytes {
		return plain(abi.StatusInsufficient, abi.ErrorManyWrites)
	}
	value, had := f.KV[h.Key]
	if h.IfNoneMatch && had || h.IfMatch != "" && (!had || etag(value) != h.IfMatch) {
		return plain(abi.StatusNotMatched, abi.ErrorCondition)
	}
	f.puts++
	f.putSize += size
	if f.KV == nil {
		f.KV = make(map[string][]byte)
	}
	write()
	return plain(abi.StatusStored, "")
}

func (f *Fake) kvList(head, _ []byte) (any, []byte) {
	var h abi.KVListHead
	switch {
	case json.Unmarshal(head, &h) != nil || h.Limit < 0 || h.Limit > abi.MaxKVList:
		return badRequest()
	case h.Prefix != "" && !validKey(h.Prefix), h.After != "" && !validKey(h.After):
		return plain(abi.StatusBadRequest, abi.ErrorKey)
	}
	if h.Limit == 0 {
		h.Limit = abi.DefaultKVList
	}
	keys := []string{}
	for _, key := range slices.Sorted(maps.Keys(f.KV)) {
		if strings.HasPrefix(key, h.Prefix) && key > h.After {
			keys = append(keys, key)
		}
	}
	body, err := json.Marshal(keys[:min(len(keys), h.Limit)])
	if err != nil {
		return badRequest()
	}
	return abi.KVReply{ReplyHead: abi.ReplyHead{Status: abi.StatusOK}, More: len(keys) > h.Limit}, body
}

// httpFetch answers what f.HTTP says. A server that is not there cannot be
// reached.
func (f *Fake) httpFetch(head, body []byte) (any, []byte) {
	var h abi.HTTPHead
	switch {
	case json.Unmarshal(head, &h) != nil:
		return badRequest()
	case f.HTTP == nil:
		return plain(abi.StatusBadGateway, abi.HTTPNetwork)
	}
	reply, out := f.HTTP(h, append([]byte(nil), body...))
	switch {
	case reply.Status != abi.StatusOK:
		return plain(reply.Status, reply.Error)
	case h.Stream:
		reply.Stream = f.stream(out)
		return reply, nil
	case h.MaxBytes == 0:
		h.MaxBytes = abi.DefaultHTTPBody
	}
	if int64(len(out)) > h.MaxBytes {
		return plain(abi.StatusBadGateway, abi.HTTPResponseTooLarge)
	}
	return reply, out
}

func (f *Fake) stream(body []byte) (handle uint32) {
	if f.streams == nil {
		f.streams = make(map[uint32][]byte)
	}
	f.handles++
	f.streams[f.handles] = body
	return f.handles
}

// StreamRead implements Host.
func (f *Fake) StreamRead(stream uint32, p []byte) (int, error) {
	left, ok := f.streams[stream]
	if !ok {
		return 0, abi.EBADF
	}
	n := copy(p, left)
	f.streams[stream] = left[n:]
	return n, nil
}

// StreamClose implements Host.
func (f *Fake) StreamClose(stream uint32) { delete(f.streams, stream) }

// Streams returns how many streams are open.
func (f *Fake) Streams() int { return len(f.streams) }

func (f *Fake) toolCall(head, body []byte) (any, []byte) {
	var h abi.ToolCallHead
	switch {
	case json.Unmarshal(head, &h) != nil || h.Tool == "":
		return badRequest()
	case f.Tools == nil:
		return plain(abi.StatusNoEntry, abi.ErrorNoTool)
	}
	return f.Tools(h.Tool, append([]byte(nil), body...))
}

func (f *Fake) timeNow([]byte, []byte) (any, []byte) {
	return abi.TimeReply{ReplyHead: abi.ReplyHead{Status: abi.StatusOK}, NowMS: f.Now().UnixMilli()}, nil
}

func (f *Fake) rand(head, _ []byte) (any, []byte) {
	var h abi.RandHead
	if json.Unmarshal(head, &h) != nil || h.N < 1 || h.N > abi.MaxRand {
		return badRequest()
	}
	body := make([]byte, h.N)
	f.Random(body)
	return abi.ReplyHead{Status: abi.StatusOK}, body
}

func kvHead(head []byte) (h abi.KVHead, bad string) {
	switch {
	case json.Unmarshal(head, &h) != nil || h.IfMatch != "" && h.IfNoneMatch:
		return h, abi.ErrorRequest
	case !validKey(h.Key):
		return h, abi.ErrorKey
	}
	return h, ""
}

func validKey(key string) bool {
	return key != "" && len(key) <= abi.MaxKVKey && strings.IndexByte(key, 0) < 0
}

// etag is not the host's: that one is opaque.
func etag(value []byte) string {
	h := fnv.New64a()
	_, _ = h.Write(value) // never fails
	return strconv.FormatUint(h.Sum64(), 16)
}
