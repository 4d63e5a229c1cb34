# The guests of the benchmark against other plugin hosts: one program in six
# ways of writing it, each in two contracts, Casemate's and Extism's. They use
# no SDK, so that both contracts cost what they cost. The Makefile includes this
# file after that of the test guests, whose toolchains it uses.

BENCHGUESTS := $(PEERS)/guests
BENCHWASM   := $(patsubst %,build/wasm/bench/%.wasm,$(foreach g,c rust assemblyscript wat go go-json,$(g) $(g)-extism))
# Without a C library: 4 KiB of code, and a stack that fits into one page.
BENCHCLANG  := $(CLANG) --target=wasm32 -O2 -nostdlib -ffreestanding -fno-builtin-memset -mbulk-memory -Wall -Wextra \
	-Wl,--no-entry -Wl,--strip-debug -Wl,-z,stack-size=16384
BENCHRUSTC   = $(RUSTC) --edition 2021 --target $(RUST_TARGET) --crate-type cdylib --crate-name bench \
	-C opt-level=3 -C lto -C panic=abort $(RUSTLD) -C link-arg=--strip-debug

$(filter build/wasm/bench/c%,$(BENCHWASM)): build/wasm/bench/%.wasm: $(wildcard $(BENCHGUESTS)/c/*)
	$(call need,$(CLANG),clang,clang)
	$(call need,wasm-ld,wasm-ld,lld)
	@mkdir -p $(@D)
	$(BENCHCLANG) $(if $(findstring extism,$*),-DEXTISM) -o $@ $(filter %.c,$^)

$(filter build/wasm/bench/rust%,$(BENCHWASM)): build/wasm/bench/%.wasm: $(BENCHGUESTS)/rust/bench.rs
	$(call need,$(RUSTC),rustc for $(RUST_TARGET),rustc libstd-rust-dev-wasm32)
	$(call need,wasm-ld,wasm-ld,lld)
	@mkdir -p $(@D)
	$(BENCHRUSTC) $(if $(findstring extism,$*),--cfg extism) -o $@ $<

$(filter build/wasm/bench/assemblyscript%,$(BENCHWASM)): build/wasm/bench/%.wasm: $(wildcard $(BENCHGUESTS)/assemblyscript/*.ts) $(ASC)
	@mkdir -p $(@D)
	cd $(BENCHGUESTS)/assemblyscript && $(CURDIR)/$(ASC) $(if $(findstring extism,$*),extism,native).ts \
		-O3 --noAssert --use abort= --outFile $(CURDIR)/$@

$(filter build/wasm/bench/wat%,$(BENCHWASM)): build/wasm/bench/%.wasm: $(wildcard $(BENCHGUESTS)/wat/*.wat)
	$(call need,$(WAT2WASM),wat2wasm,wabt)
	@mkdir -p $(@D) build/tmp
	cat $(BENCHGUESTS)/wat/$(if $(findstring extism,$*),extism,native).wat $(BENCHGUESTS)/wat/work.wat >build/tmp/$*.wat
	$(WAT2WASM) -o $@ build/tmp/$*.wat

$(filter build/wasm/bench/go%,$(BENCHWASM)): build/wasm/bench/%.wasm: $(wildcard $(BENCHGUESTS)/go/*.go)
	@mkdir -p $(@D)
	cd $(PEERS) && $(WASIP1) $(GO) build $(GUESTFLAGS) -tags='$(filter-out go,$(subst -, ,$*))' -o $(CURDIR)/$@ ./guests/go
