// Package tokens counts tokens as a common tokenizer does, for what is asked
// before a model is. It calls no model and knows no model's own tokenizer.
package tokens
