# Everything here needs Go, make and git only. Tools are pinned and run by go
# run, so nothing is installed. GO=/path/to/go chooses another Go.

GO       ?= go
GOFUMPT  ?= $(GO) run mvdan.cc/gofumpt@v0.12.0
GOLANGCI ?= $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
CLIENT   := examples/clients/go
GUESTS   := $(patsubst %/main.go,%,$(wildcard policies/*/main.go examples/tools/*/main.go))
WASM     := $(patsubst %,build/wasm/%.wasm,$(notdir $(GUESTS)))
CASEMATE := bin/casemate
WASIP1   := GOOS=wasip1 GOARCH=wasm

# The race detector needs a C compiler; without one the tests run without it.
RACE := $(if $(filter 1,$(shell $(GO) env CGO_ENABLED)),-race)

.DEFAULT_GOAL := help
.PHONY: help build guests run test check format vet lint tidy law bench demo clean FORCE

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: $(CASEMATE) guests ## build bin/casemate and the guests

guests: $(WASM) ## build tools and policies into build/wasm/NAME.wasm, packed

run: build ## start a host on 127.0.0.1:8080 with the demo model
	@exec $(CASEMATE) serve

test: ## run all tests, on SQLite and PostgreSQL
	@test -n "$(RACE)" || echo 'no C compiler: the tests run without the race detector' >&2
	$(GO) test $(RACE) -shuffle=on -count=1 ./...

check: format vet lint tidy law ## format, vet for both targets, lint, go.mod, import law

bench: build ## measure; prints "bench NAME value=… goal=… met|missed"
	$(GO) run ./host/internal/bench

demo: build ## ask one question that needs a tool, and show the events
	$(CASEMATE) demo

clean: ## remove what was built
	rm -rf bin build

format:
	@out=$$($(GOFUMPT) -l .) && test -z "$$out" || { printf 'not formatted by gofumpt:\n%s\n' "$$out" >&2; exit 1; }

vet:
	$(GO) vet ./...
	$(WASIP1) $(GO) vet ./sdk/... ./policies/... ./examples/tools/...
	cd $(CLIENT) && $(GO) vet ./...

lint:
	$(GOLANGCI) run ./...

tidy:
	$(GO) mod tidy -diff
	cd $(CLIENT) && $(GO) mod tidy -diff

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
	$(WASIP1) $(GO) build -buildmode=c-shared -trimpath -ldflags="-s -w" \
		-o build/tmp/$*.new ./$(filter %/$*,$(GUESTS))
	@if cmp -s build/tmp/$*.new build/tmp/$*.wasm && test -f $@; then rm build/tmp/$*.new; else \
		$(CASEMATE) plugin pack build/tmp/$*.new -o $@ && mv build/tmp/$*.new build/tmp/$*.wasm; fi

FORCE:
