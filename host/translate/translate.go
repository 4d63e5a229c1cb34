// Package translate says one model call in the words of an upstream's API,
// Chat Completions or Responses, and reads its answer, and turns a client's
// chat completion into a call of an upstream that speaks Responses and back. It
// does no I/O, plans nothing and emits no events.
package translate
