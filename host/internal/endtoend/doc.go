// Package endtoend holds no code, only tests of the real binary as processes:
// killed, stopped and started again, one or several on a database.
package endtoend
