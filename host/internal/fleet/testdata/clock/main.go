// Command clock says what time it is, in seconds, and how many milliseconds 20
// of them take.
package main

import (
	"fmt"
	"time"
)

func main() {
	began := time.Now()
	time.Sleep(20 * time.Millisecond)
	fmt.Println(began.Unix(), time.Since(began).Milliseconds())
}
