package main

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of an expression.
const (
	maxLength   = 1000 // bytes
	maxDepth    = 100  // parentheses, signs and powers inside each other
	maxExponent = 1000 // of a number in scientific notation
)

// evaluate returns the exact value of an expression:
//
//	sum     = product { ("+" | "-") product }
//	product = unary { ("*" | "/" | "%") unary }
//	unary   = ("+" | "-") unary | power
//	power   = primary [ ("^" | "**") unary ]
//	primary = number | "(" sum ")"
//
// so −2^2 is −4 and 2^3^2 is 2^9. Errors say where and what was wanted.
func evaluate(expression string) (*big.Rat, error) {
	if len(expression) > maxLength {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(expression), maxLength)
	}
	p := parser{text: expression}
	if p.peek() == "" {
		return nil, errors.New("empty")
	}
	value, err := p.sum()
	if err != nil {
		return nil, err
	}
	if rest := p.peek(); rest != "" {
		return nil, p.wanted("an operator", rest)
	}
	return value, nil
}

// parser reads text from left to right; pos is the next byte.
type parser struct {
	text  string
	pos   int
	depth int
}

// peek skips spaces and returns the next operator or character, "" at the end.
func (p *parser) peek() string {
	for p.pos < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.pos]) >= 0 {
		p.pos++
	}
	rest := p.text[p.pos:]
	if strings.HasPrefix(rest, "**") {
		return "**"
	}
	_, size := utf8.DecodeRuneInString(rest)
	return rest[:size]
}

// accept takes the next token if it is one of tokens, and returns it or "".
func (p *parser) accept(tokens ...string) string {
	next := p.peek()
	for _, t := range tokens {
		if next == t {
			p.pos += len(t)
			return t
		}
	}
	return ""
}

func (p *parser) wanted(what, have string) error {
	if have == "" {
		return fmt.Errorf("at its end: want %s", what)
	}
	return fmt.Errorf("at character %d: want %s, have %q", utf8.RuneCountInString(p.text[:p.pos])+1, what, have)
}

// enter goes one level deeper; the caller leaves it again.
func (p *parser) enter() error {
	if p.depth++; p.depth > maxDepth {
		return fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	return nil
}

func (p *parser) leave() { p.depth-- }

func (p *parser) sum() (*big.Rat, error) {
	value, err := p.product()
	for err == nil {
		op := p.accept("+", "-")
		if op == "" {
			break
		}
		value, err = p.then(value, op, p.product)
	}
	return value, err
}

func (p *parser) product() (*big.Rat, error) {
	value, err := p.unary()
	for err == nil {
		op := p.accept("*", "/", "%")
		if op == "" {
			break
		}
		value, err = p.then(value, op, p.unary)
	}
	return value, err
}

// then applies op to left and what operand reads.
func (p *parser) then(left *big.Rat, op string, operand func() (*big.Rat, error)) (*big.Rat, error) {
	right, err := operand()
	if err != nil {
		return nil, err
	}
	return apply(left, op, right)
}

func (p *parser) unary() (*big.Rat, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	sign := p.accept("+", "-")
	if sign == "" {
		return p.power()
	}
	value, err := p.unary()
	if err == nil && sign == "-" {
		value = new(big.Rat).Neg(value)
	}
	return value, err
}

func (p *parser) power() (*big.Rat, error) {
	base, err := p.primary()
	if err != nil || p.accept("^", "**") == "" {
		return base, err
	}
	return p.then(base, "^", p.unary)
}

func (p *parser) primary() (*big.Rat, error) {
	if p.accept("(") == "" {
		return p.number()
	}
	value, err := p.sum()
	if err != nil {
		return nil, err
	}
	if p.accept(")") == "" {
		return nil, p.wanted(`")"`, p.peek())
	}
	return value, nil
}

// number reads digits with an optional point and an optional exponent.
func (p *parser) number() (*big.Rat, error) {
	have := p.peek()
	start := p.pos
	digits := p.digits()
	if p.pos < len(p.text) && p.text[p.pos] == '.' {
		p.pos++
		digits += p.digits()
	}
	if digits == 0 {
		p.pos = start
		return nil, p.wanted("a number", have)
	}
	if err := p.exponent(); err != nil {
		return nil, err
	}
	value, ok := new(big.Rat).SetString(p.text[start:p.pos])
	if !ok {
		return nil, fmt.Errorf("%q is not a number", p.text[start:p.pos])
	}
	return limited(value)
}

func (p *parser) digits() int {
	start := p.pos
	for p.pos < len(p.text) && '0' <= p.text[p.pos] && p.text[p.pos] <= '9' {
		p.pos++
	}
	return p.pos - start
}

// exponent takes an e with its digits. An e without digits is left where it
// is, for the caller to complain of.
func (p *parser) exponent() error {
	start := p.pos
	if start >= len(p.text) || p.text[start]|0x20 != 'e' {
		return nil
	}
	p.pos++
	if p.pos < len(p.text) && (p.text[p.pos] == '+' || p.text[p.pos] == '-') {
		p.pos++
	}
	if p.digits() == 0 {
		p.pos = start
		return nil
	}
	n, err := strconv.Atoi(p.text[start+1 : p.pos])
	if err != nil || n > maxExponent || n < -maxExponent {
		return fmt.Errorf("exponent %s is not in ±%d", p.text[start+1:p.pos], maxExponent)
	}
	return nil
}
