# make run and make test need Go 1.26, Node 20 with npm, git and make, and fetch
# the rest themselves; a second time they need no network. `make help` lists all.

VERSION := $(shell cat VERSION)
LIBRARY := $(CURDIR)/bin/libchdb.so
GO      ?= go

# Arguments of `coc up`, such as ARGS="--data /srv/coc --without journal".
ARGS ?=
# Packages and extra flags of the Go tests, such as PKG=./services/rule TESTFLAGS="-run Window -v".
PKG       ?= ./...
TESTFLAGS ?=
# How long one fuzz target runs, and which.
FUZZTIME ?= 30s
FUZZ     ?= .

# Without cgo: the binary is the same whether or not there is a C compiler. The
# version control stamp is left out because it fails in a clone of another owner.
PURE := CGO_ENABLED=0
# The race detector is C. Tests see the library and no other COC_ setting of
# whoever runs them; vet has run by itself.
RACE := env $(foreach v,$(filter COC_%,$(.VARIABLES)),-u $(v)) COC_LIBCHDB=$(LIBRARY) CGO_ENABLED=1 $(GO) test -race -vet=off

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run build library test test-long format vet staticcheck race compiler tools bench bench-go fuzz clean distclean

help: ## Print this list.
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## Build and start everything in one process, watching this machine (ARGS="…" goes to coc up).
	@exec bin/coc up $(ARGS)

build: tools library ## Build bin/coc, with the ClickHouse library beside it.
	$(PURE) $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o bin/coc ./services/coc

test: build compiler ## Run every check and test, all of them even if one fails: at most ten minutes on two cores.
	@$(MAKE) --no-print-directory -k format vet staticcheck race
	@echo 'make test: all passed'

test-long: test ## Run what takes longer as well: tests behind the tag "long", and each fuzz target for two minutes.
	$(RACE) -tags long -timeout 60m $(TESTFLAGS) $(PKG)
	@$(MAKE) --no-print-directory fuzz FUZZTIME=2m

format: ## Check that gofmt would change nothing.
	@echo '== gofmt'
	@files=$$(gofmt -l services schemas) || exit 1; \
	if [ -n "$$files" ]; then echo "$$files"; echo 'not formatted: run gofmt -w on the files above' >&2; exit 1; fi

vet: ## Run go vet.
	@echo '== go vet'
	@$(PURE) $(GO) vet -tags long $(PKG)

staticcheck: ## Run staticcheck, as staticcheck.conf says.
	@echo '== staticcheck'
	@$(PURE) $(GO) tool staticcheck -tags long $(PKG)

race: library compiler ## Run the Go tests with the race detector (PKG=…, TESTFLAGS="…").
	@echo '== go test -race'
	@$(RACE) -timeout 8m $(TESTFLAGS) $(PKG)

bench: build ## Measure this machine: limit, pipeline, engine, intake (JSON).
	@bin/coc bench

bench-go: library ## Run the Go benchmarks (PKG=…).
	COC_LIBCHDB=$(LIBRARY) $(GO) test -run '^$$' -bench . -benchmem $(TESTFLAGS) $(PKG)

fuzz: library ## Run each fuzz target for FUZZTIME (FUZZ=regexp chooses, PKG=… too).
	@for dir in $$($(GO) list -buildvcs=false -f '{{.Dir}}' $(PKG)); do \
	  for target in $$(cat "$$dir"/*_test.go 2>/dev/null | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' | grep -E '$(FUZZ)'); do \
	    echo "== $$target for $(FUZZTIME) in $${dir#$(CURDIR)/}"; \
	    COC_LIBCHDB=$(LIBRARY) $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$dir" || exit 1; \
	  done; \
	done

clean: ## Remove what was built; what was fetched stays.
	rm -rf bin

distclean: clean ## Remove what was fetched by npm too.
	rm -rf node_modules

tools:
	@command -v $(GO) >/dev/null || { echo 'Go 1.26 is needed: install it, see https://go.dev/doc/install' >&2; exit 1; }

library:
	@.ci/library

compiler:
	@.ci/compiler
