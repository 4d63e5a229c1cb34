# count_global adds one to a mutable global of the module and returns it. C and
# Rust have no word for such a global.

	.globaltype	counter, i32
counter:

	.globl	count_global
	.type	count_global,@function
count_global:
	.functype	count_global () -> (i32)
	global.get	counter
	i32.const	1
	i32.add
	global.set	counter
	global.get	counter
	end_function
