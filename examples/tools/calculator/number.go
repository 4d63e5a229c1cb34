package main

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
)

// maxBits bounds numerator and denominator of every value on the way, and
// with them the time and the memory of a call: about 1,200 digits.
const maxBits = 4096

// digits is how many significant digits a value has that decimals cannot give
// exactly.
const digits = 16

var errDivisionByZero = errors.New("division by zero")

// apply returns left op right.
func apply(left *big.Rat, op string, right *big.Rat) (*big.Rat, error) {
	value := new(big.Rat)
	switch op {
	case "+":
		value.Add(left, right)
	case "-":
		value.Sub(left, right)
	case "*":
		value.Mul(left, right)
	case "/":
		if right.Sign() == 0 {
			return nil, errDivisionByZero
		}
		value.Quo(left, right)
	case "%":
		return remainder(left, right)
	case "^":
		return power(left, right)
	}
	return limited(value)
}

// limited returns value, or an error when it is too large or too fine.
func limited(value *big.Rat) (*big.Rat, error) {
	if value.Num().BitLen() > maxBits || value.Denom().BitLen() > maxBits {
		return nil, fmt.Errorf("a value on the way has more than %d bits", maxBits)
	}
	return value, nil
}

// remainder returns what is left of a after taking b a whole number of times;
// it has the sign of a.
func remainder(a, b *big.Rat) (*big.Rat, error) {
	if b.Sign() == 0 {
		return nil, errDivisionByZero
	}
	times := new(big.Rat).Quo(a, b)
	whole := new(big.Int).Quo(times.Num(), times.Denom()) // toward zero
	taken := new(big.Rat).Mul(b, new(big.Rat).SetInt(whole))
	return limited(new(big.Rat).Sub(a, taken))
}

// power returns base^exponent: exact for whole exponents, to 15 digits for
// others.
func power(base, exponent *big.Rat) (*big.Rat, error) {
	if base.Sign() == 0 && exponent.Sign() < 0 {
		return nil, errDivisionByZero
	}
	if !exponent.IsInt() {
		return fractionalPower(base, exponent)
	}
	size := max(base.Num().BitLen(), base.Denom().BitLen())
	n := exponent.Num()
	unit := base.Num().CmpAbs(base.Denom()) == 0 || base.Sign() == 0 // −1, 0 and 1 do not grow
	if !unit && (!n.IsInt64() || abs(n.Int64()) > maxBits || int64(size-1)*abs(n.Int64()) > maxBits) {
		return nil, fmt.Errorf("a power has more than %d bits", maxBits)
	}
	if unit {
		// The sign is all that the exponent decides.
		n = new(big.Int).And(new(big.Int).Abs(n), big.NewInt(1))
		if exponent.Sign() != 0 && n.Sign() == 0 {
			n.SetInt64(2)
		}
	}
	value := new(big.Rat).SetFrac(
		new(big.Int).Exp(base.Num(), new(big.Int).Abs(n), nil),
		new(big.Int).Exp(base.Denom(), new(big.Int).Abs(n), nil))
	if n.Sign() < 0 {
		value.Inv(value)
	}
	return limited(value)
}

func fractionalPower(base, exponent *big.Rat) (*big.Rat, error) {
	if base.Sign() < 0 {
		return nil, errors.New("a fractional power of a negative number")
	}
	b, _ := base.Float64()
	e, _ := exponent.Float64()
	v := math.Pow(b, e)
	if math.IsInf(v, 0) || math.IsNaN(v) {
		return nil, errors.New("a power is too large")
	}
	// What is beyond 15 digits is noise of the binary fraction.
	value, ok := new(big.Rat).SetString(strconv.FormatFloat(v, 'g', 15, 64))
	if !ok {
		return nil, errors.New("a power is not a number")
	}
	return limited(value)
}

func abs(n int64) int64 {
	if n < 0 {
		return -n
	}
	return n
}

// format writes a value as a JSON number: all digits of a whole number and of
// a decimal of up to 20 places, 16 significant digits of any other.
func format(value *big.Rat) string {
	if value.IsInt() {
		return value.Num().String()
	}
	const most = 20
	if places, exact := value.FloatPrec(); exact && places <= most {
		return value.FloatString(places)
	}
	return new(big.Float).SetPrec(2*maxBits).SetRat(value).Text('g', digits)
}
