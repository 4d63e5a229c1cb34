# The test guests: one plugin in five languages, by toolchains as Debian and npm
# have them. Each is rebuilt when its sources change. make guests-all.

TESTGUESTS  := plugins/internal/testguests
TESTWASM    := $(patsubst %,build/wasm/test/pristine-%.wasm,assemblyscript c go rust wat)
CLANG       ?= clang
CLANGFLAGS  := --target=wasm32-wasi -mexec-model=reactor -O2 -Wall -Wextra -Wl,--strip-debug
WAT2WASM    ?= wat2wasm
NPM         ?= npm
ASC         := build/asc/node_modules/.bin/asc
C_PACKAGES  := clang lld wasi-libc libclang-rt-dev-wasm32
RUST_TARGET := wasm32-unknown-unknown

# The first compiler that has the target: one of rustup often lacks it where
# Debian's has it.
RUSTC ?= $(shell for rustc in rustc /usr/bin/rustc; do \
	libs=$$($$rustc --print target-libdir --target $(RUST_TARGET) 2>/dev/null) && test -d "$$libs" && command -v $$rustc && break; done)
# Debian's has no linker of its own.
RUSTLD = $(if $(filter /usr/bin/%,$(RUSTC)),-C linker=wasm-ld -C linker-flavor=wasm-ld)

# need: fails unless a command is there, and tells how to get it.
need = @test -n "$$(command -v '$(strip $(1))')" || { echo 'make: no $(strip $(2)): apt-get install $(3) (Debian)' >&2; exit 1; }

build/wasm/test/%.wasm: build/tmp/test/%.wasm | $(CASEMATE)
	@mkdir -p $(@D)
	$(CASEMATE) plugin pack $< -o $@

build/tmp/test/pristine-c.wasm: $(wildcard $(TESTGUESTS)/c/*)
	$(call need,$(CLANG),clang,$(C_PACKAGES))
	$(call need,wasm-ld,wasm-ld,$(C_PACKAGES))
	@mkdir -p $(@D)
	$(CLANG) $(CLANGFLAGS) -o $@ $(filter %.c %.s,$^) || \
		{ echo 'make: the guest in C needs all of: apt-get install $(C_PACKAGES) (Debian)' >&2; exit 1; }

build/tmp/test/global.o: $(TESTGUESTS)/c/global.s
	$(call need,$(CLANG),clang,$(C_PACKAGES))
	@mkdir -p $(@D)
	$(CLANG) --target=wasm32-wasi -c -o $@ $<

build/tmp/test/pristine-rust.wasm: $(wildcard $(TESTGUESTS)/rust/*.rs) build/tmp/test/global.o
	$(call need,$(RUSTC),rustc for $(RUST_TARGET),rustc libstd-rust-dev-wasm32 lld)
	$(call need,wasm-ld,wasm-ld,lld)
	$(RUSTC) --edition 2021 --target $(RUST_TARGET) --crate-type cdylib --crate-name pristine \
		-C opt-level=3 -C lto -C panic=abort $(RUSTLD) -C link-arg=--strip-debug \
		-C link-arg=build/tmp/test/global.o -o $@ $(TESTGUESTS)/rust/main.rs

build/tmp/test/pristine-assemblyscript.wasm: $(wildcard $(TESTGUESTS)/assemblyscript/*.ts) $(ASC)
	@mkdir -p $(@D)
	cd $(TESTGUESTS)/assemblyscript && $(CURDIR)/$(ASC) main.ts -O3 --debug --outFile $(CURDIR)/$@

# The compiler is installed into build, at the versions of the lock file.
$(ASC): $(TESTGUESTS)/assemblyscript/package.json $(TESTGUESTS)/assemblyscript/package-lock.json
	$(call need,node,node,nodejs)
	$(call need,$(NPM),npm,npm)
	@mkdir -p build/asc
	cp $^ build/asc
	cd build/asc && $(NPM) ci --no-audit --no-fund --ignore-scripts
	@touch $@

build/tmp/test/pristine-wat.wasm: $(TESTGUESTS)/wat/main.wat
	$(call need,$(WAT2WASM),wat2wasm,wabt)
	@mkdir -p $(@D)
	$(WAT2WASM) --debug-names -o $@ $<

build/tmp/test/pristine-go.wasm: FORCE
	@mkdir -p $(@D)
	$(WASIP1) $(GO) build $(GUESTFLAGS) -o $@.new ./$(TESTGUESTS)/go
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi
