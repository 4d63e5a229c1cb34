package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

const (
	// maxField is the most bytes of a field of a form, maxForm of all that is not
	// the file.
	maxField = 4 << 10
	maxForm  = 1 << 20
	// maxFilename is the most bytes of a file's name.
	maxFilename = 512
	// The times that a file may be told to expire after.
	minExpire, maxExpire = time.Hour, 30 * 24 * time.Hour
)

// uploading is a form that comes in. Its file comes before the fields that say
// what it is for.
type uploading struct {
	x      *exchange
	file   store.File // its ID is zero until it is there
	bytes  int64
	fields map[string]string
}

// upload serves POST /v1/files: the file goes to the store as it comes, and is
// a file once the form is whole.
func (a *API) upload(x *exchange) error {
	if err := a.admit(); err != nil {
		return err
	}
	if x.r.ContentLength > a.MaxFileBytes+maxForm {
		x.w.Header().Set("Connection", "close")
		return tooLargeFile(a.MaxFileBytes)
	}
	x.r.Body = http.MaxBytesReader(x.w, x.r.Body, a.MaxFileBytes+maxForm)
	form, err := x.r.MultipartReader()
	if err != nil {
		return &response.BadRequest{Code: "invalid_form", Message: "The body must be multipart/form-data with a file and its purpose."}
	}
	u := &uploading{x: x, fields: make(map[string]string)}
	f, err := u.read(form)
	_ = x.rc.SetReadDeadline(time.Time{})
	if err != nil {
		u.drop()
		return err
	}
	return x.writeJSON(http.StatusOK, objectOfFile(f))
}

func tooLargeFile(limit int64) error {
	return &Error{
		Status: http.StatusRequestEntityTooLarge, Code: "payload_too_large", Param: "file",
		Message: fmt.Sprintf("The file is larger than %d bytes.", limit),
	}
}

// drop lets go of what came of a form that is no good. If that fails, the store
// does so in a while.
func (u *uploading) drop() {
	if u.file.ID == (queue.ID{}) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(u.x.r.Context()), 10*time.Second)
	defer cancel()
	// Only what is whole can be deleted.
	_, err := u.x.a.Uploads.FinishFile(ctx, u.file.ID, store.FileEnd{})
	if err == nil {
		err = u.x.a.Uploads.DeleteFile(ctx, u.x.tenant.Name, u.file.ID)
	}
	if err != nil && !errors.Is(err, queue.ErrNotFound) {
		u.x.a.Logger.Warn("drop an upload", "file", u.file.ID, "error", err)
	}
}

// read takes the form part by part.
func (u *uploading) read(form *multipart.Reader) (store.File, error) {
	for {
		u.allow()
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			return u.finish()
		}
		if err != nil {
			return store.File{}, u.broken(err)
		}
		if part.FormName() == "file" && part.FileName() != "" {
			err = u.take(part)
		} else {
			err = u.field(part)
		}
		if err != nil {
			return store.File{}, err
		}
	}
}

// allow gives the client Options.ReadTimeout for what it sends next.
func (u *uploading) allow() { _ = u.x.rc.SetReadDeadline(time.Now().Add(u.x.a.ReadTimeout)) }

// broken says why a form could not be read.
func (u *uploading) broken(err error) error {
	x := u.x
	var size *http.MaxBytesError
	switch {
	case errors.As(err, &size):
		return tooLargeFile(x.a.MaxFileBytes)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("api: upload: %w", errTooSlow)
	case x.r.Context().Err() != nil, errors.Is(err, context.Canceled):
		return fmt.Errorf("api: upload: %w: %w", x.left(), err)
	}
	x.w.Header().Set("Connection", "close")
	return &response.BadRequest{Code: "invalid_form", Message: "The form could not be read: it is broken, or ends too early."}
}

// field keeps a field of the form.
func (u *uploading) field(part *multipart.Part) error {
	value, err := io.ReadAll(io.LimitReader(part, maxField+1))
	name := part.FormName()
	switch {
	case err != nil:
		return u.broken(err)
	case len(value) > maxField, len(u.fields) > 100, !utf8.Valid(value), strings.ContainsRune(string(value), 0):
		return &response.BadRequest{Param: paramOf(name), Code: "invalid_value", Message: "A field of the form is too long, or there are too many, or it is no text."}
	}
	u.fields[name] = string(value)
	return nil
}

// paramOf is the parameter that a field of the form stands for.
func paramOf(field string) string {
	if field == "file" || field == "purpose" {
		return field
	}
	if strings.HasPrefix(field, "expires_after") {
		return "expires_after"
	}
	return ""
}

// take stores the file a chunk at a time, in one buffer.
func (u *uploading) take(part *multipart.Part) error {
	x := u.x
	name := part.FileName()
	switch {
	case u.file.ID != (queue.ID{}):
		return &response.BadRequest{Param: "file", Code: "invalid_value", Message: "There can be one file only."}
	case len(name) > maxFilename || !utf8.ValidString(name) || strings.ContainsRune(name, 0):
		return &response.BadRequest{Param: "file", Code: "invalid_value", Message: fmt.Sprintf("The name of the file must be text of at most %d bytes.", maxFilename)}
	}
	f := store.File{ID: queue.NewID(), Tenant: x.tenant.Name, Name: name}
	if err := x.a.Uploads.CreateFile(x.r.Context(), f); err != nil {
		return fmt.Errorf("api: upload: %w", err)
	}
	u.file = f
	buf := make([]byte, store.FileChunk)
	for n := 0; ; n++ {
		size, err := u.fill(part, buf)
		if u.bytes += int64(size); u.bytes > x.a.MaxFileBytes {
			x.w.Header().Set("Connection", "close")
			return tooLargeFile(x.a.MaxFileBytes)
		}
		if size > 0 && (err == nil || errors.Is(err, io.EOF)) {
			switch err := x.a.Uploads.PutChunk(x.r.Context(), f.ID, n, buf[:size]); {
			case errors.Is(err, queue.ErrNotFound): // given up: nothing came for too long
				return fmt.Errorf("api: upload: %w", errTooSlow)
			case err != nil:
				return fmt.Errorf("api: upload: %w", err)
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return u.broken(err)
		}
	}
}

// fill reads until buf is full; the error is io.EOF at the end of the part.
// Whoever sends slowly, but sends, is waited for.
func (u *uploading) fill(part io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		u.allow()
		var m int
		m, err = part.Read(buf[n:])
		n += m
	}
	return n, err
}

// finish makes the upload a file.
func (u *uploading) finish() (store.File, error) {
	end := store.FileEnd{Purpose: u.fields["purpose"], Bytes: u.bytes}
	var err error
	switch {
	case u.file.ID == (queue.ID{}):
		return store.File{}, &response.BadRequest{Param: "file", Code: "missing_required_parameter", Message: "file is required: a part of the form with a filename."}
	case u.bytes == 0:
		return store.File{}, &response.BadRequest{Param: "file", Code: "invalid_value", Message: "The file is empty."}
	case end.Purpose == "":
		return store.File{}, &response.BadRequest{Param: "purpose", Code: "missing_required_parameter", Message: "purpose is required."}
	case !slices.Contains(purposes, end.Purpose):
		return store.File{}, badPurpose()
	}
	if end.ExpiresIn, err = expiresAfter(u.fields["expires_after[anchor]"], u.fields["expires_after[seconds]"]); err != nil {
		return store.File{}, err
	}
	f, err := u.x.a.Uploads.FinishFile(u.x.r.Context(), u.file.ID, end)
	if err != nil {
		return store.File{}, fmt.Errorf("api: upload: %w", err)
	}
	return f, nil
}

// expiresAfter reads how long a file is to stay; 0: for ever.
func expiresAfter(anchor, seconds string) (time.Duration, error) {
	if anchor == "" && seconds == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	least, most := int64(minExpire/time.Second), int64(maxExpire/time.Second)
	switch {
	case anchor != "created_at":
		return 0, &response.BadRequest{Param: "expires_after", Code: "invalid_value", Message: "expires_after.anchor must be created_at."}
	case err != nil || n < least || n > most:
		return 0, &response.BadRequest{Param: "expires_after", Code: "invalid_value", Message: fmt.Sprintf("expires_after.seconds must be %d to %d.", least, most)}
	}
	return time.Duration(n) * time.Second, nil
}
