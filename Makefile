# Everything here needs Go, make and git only, but for guests-all, which needs
# the toolchains of other languages, and bench-peers, which needs a C compiler.
# Tools are pinned and run by go run, so nothing is installed. GO=/path/to/go
# chooses another Go.

GO         ?= go
GOFUMPT    ?= $(GO) run mvdan.cc/gofumpt@v0.12.0
GOLANGCI   ?= $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GUESTFLAGS := -buildmode=c-shared -trimpath -ldflags=-w
GUESTS     := $(patsubst %/main.go,%,$(wildcard policies/*/main.go examples/tools/*/main.go))
WASM       := $(patsubst %,build/wasm/%.wasm,$(notdir $(GUESTS)))
CASEMATE   := bin/casemate
WASIP1     := GOOS=wasip1 GOARCH=wasm

# The race detector and the peers' engines need a C compiler; without one the
# tests run without the detector and the peers are not looked at.
CGO  := $(filter 1,$(shell $(GO) env CGO_ENABLED))
RACE := $(if $(CGO),-race)

# Modules of their own, so that this one's go.mod stays clean.
PEERS      := plugins/internal/bench/peers
QUEUEPEERS := host/internal/bench/peers
MODULES    := examples/clients/go $(QUEUEPEERS) $(if $(CGO),$(PEERS))

include plugins/internal/testguests/guests.mk
include $(PEERS)/guests.mk

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help build guests guests-all run test check format vet cross lint tidy law soak load bench bench-guests bench-queue bench-peers demo clean FORCE

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: $(CASEMATE) guests ## build bin/casemate and the guests

guests: $(WASM) ## build tools and policies into build/wasm/NAME.wasm, packed

guests-all: guests $(TESTWASM) bench-guests ## build the guests of tests and benchmarks too, in C, Rust, AssemblyScript, WAT and Go

bench-guests: $(BENCHWASM)

run: build ## start a host on 127.0.0.1:8080 with the demo model
	@exec $(CASEMATE) serve

test: ## run all tests, on SQLite and PostgreSQL
	@test -n "$(RACE)" || echo 'no C compiler: the tests run without the race detector' >&2
	$(GO) test $(RACE) -shuffle=on -count=1 -timeout=20m ./...

soak: ## 20,000 requests on four hosts that are killed, stopped, cut off and skewed, and a database that goes away
	$(GO) test -count=1 -timeout=60m -run 'TestFleetSoak$$' -v ./host/internal/endtoend -fleet.requests=20000 -fleet.duration=5m

load: ## 64 clients for a minute, on both databases: memory, goroutines, every response accounted for
	$(GO) test -count=1 -timeout=20m -run 'TestLoad$$' -v ./host/internal/endtoend -load.duration=60s

check: format vet lint tidy law ## format, vet for all targets, lint, go.mod, import law

bench: build ## measure; prints "bench NAME value=… goal=… met|missed"
	$(GO) run ./host/internal/bench
	$(MAKE) bench-queue
	$(if $(CGO),$(MAKE) bench-peers)

bench-queue: ## measure the queue, up to a million requests, beside River
	cd $(QUEUEPEERS) && $(GO) run .

bench-peers: bench-guests ## measure calls of plugins against other hosts; needs a C compiler
	cd $(PEERS) && $(GO) run . -wasm $(CURDIR)/build/wasm/bench

demo: build ## ask one question that needs a tool, and show the events
	$(CASEMATE) demo

clean: ## remove what was built
	rm -rf bin build

format:
	@out=$$($(GOFUMPT) -l .) && test -z "$$out" || { printf 'not formatted by gofumpt:\n%s\n' "$$out" >&2; exit 1; }

vet: cross
	$(GO) vet ./...
	$(WASIP1) $(GO) vet ./sdk/... ./policies/... ./examples/tools/... ./$(TESTGUESTS)/...
	for m in $(MODULES); do (cd $$m && $(GO) vet ./...) || exit 1; done
	cd $(PEERS) && for tags in '' json extism json,extism; do \
		$(WASIP1) $(GO) vet -tags="$$tags" ./guests/go || exit 1; \
	done

# The portable paths, which nothing here runs: all packages but those with tests
# that start and kill processes as Unix does, and the host as a whole.
UNIX := /host/(batch|cmd/casemate|doctor|loop|queuebench|internal/(bench|endtoend|fleet|testdb)|store/postgres)$$

cross:
	for os in darwin windows; do \
		export GOOS=$$os CGO_ENABLED=0 && \
		$(GO) vet $$($(GO) list ./... | grep -vE '$(UNIX)') && \
		$(GO) build -o build/tmp/$$os/ ./host/cmd/casemate || exit 1; \
	done

lint:
	$(GOLANGCI) run ./...

tidy:
	$(GO) mod tidy -diff
	for m in $(MODULES); do (cd $$m && $(GO) mod tidy -diff) || exit 1; done

law:
	$(GO) test -count=1 ./host/internal/layers

# Go knows best what is out of date, so it is always asked.
$(CASEMATE): FORCE
	$(GO) build -trimpath -o $@ ./host/cmd/casemate

# A guest is built beside its place and written there when it is packed: a host
# that watches the file never sees half of it. One that came out the same stays
# as it is; make clean makes all of them anew.
build/wasm/%.wasm: FORCE | $(CASEMATE)
	@mkdir -p build/wasm build/tmp
	$(WASIP1) $(GO) build $(GUESTFLAGS) -o build/tmp/$*.new ./$(filter %/$*,$(GUESTS))
	@if cmp -s build/tmp/$*.new build/tmp/$*.wasm && test -f $@; then rm build/tmp/$*.new; else \
		$(CASEMATE) plugin pack build/tmp/$*.new -o $@ && mv build/tmp/$*.new build/tmp/$*.wasm; fi

FORCE:
