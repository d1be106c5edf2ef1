# `make` alone lists the commands.
.DEFAULT_GOAL := help
SHELL := /bin/bash
CARGO ?= cargo
export WEFT_TOOLS ?= $(HOME)/.cache/weft
# Where cargo puts programs: the target is named in .cargo/config.toml.
target := $(or $(CARGO_TARGET_DIR),target)
programs := $(target)/$(shell rustc --print host-tuple)
# After a build: target/bin leads to the programs.
link = @mkdir -p target && ln -sfn $(abspath $(programs))/$(1) target/bin

.PHONY: help
help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.PHONY: setup
setup: ## Install what building, the tests and the demo need (Debian 12, root)
	@scripts/setup test

.PHONY: build
build: ## Build every program, unoptimised
	@scripts/setup build
	$(CARGO) build --workspace --bins
	$(call link,debug)

.PHONY: demo
demo: ## Set everything up, start the sandbox with the sample apps, drive every protocol, show what happened (root)
	@scripts/setup test
	$(CARGO) build --workspace --bins
	$(call link,debug)
	@scripts/demo

.PHONY: test
test: ## Set everything up, run every test: unit, property, sandbox, probes (root)
	@scripts/setup test
	$(CARGO) build --workspace --bins
	$(CARGO) test --workspace --no-fail-fast

.PHONY: lint
lint: ## Formatting, and clippy with warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy -p weft-tests --test kube -- -D warnings

.PHONY: deny
deny: ## Bans, licences and sources of the dependencies
	@scripts/setup ci
	$(WEFT_TOOLS)/tools/bin/cargo-deny --all-features check bans licenses sources

.PHONY: proto
proto: ## Generate the code of the protocol buffers anew
	WEFT_REGENERATE=1 $(CARGO) test -p weft-proto --features rpc --test generated

.PHONY: bless
bless: ## Write the golden files anew, from what the code does now
	WEFT_BLESS=1 $(CARGO) test -p weft-init -p weft-injector -p weft-controller golden; WEFT_BLESS=1 $(CARGO) test -p weft-tests --test metrics_page --test config_page

.PHONY: release
release: ## Build every program, optimised
	@scripts/setup build
	$(CARGO) build --release --workspace --bins

.PHONY: images
images: ## Pack the images as archives in target/images, without Docker (PROFILE=dev: unoptimised)
	@scripts/setup e2e
ifeq ($(PROFILE),dev)
	$(CARGO) build --workspace --bins
	$(call link,debug)
	@scripts/images dev
else
	$(CARGO) build --release --workspace --bins
	@scripts/images release
endif

.PHONY: e2e
e2e: ## Test on a real Kubernetes, which is started for it (root). ARGS=name: the tests of that name alone
	@scripts/setup e2e
	$(CARGO) build --workspace --bins
	$(call link,debug)
	$(CARGO) test -p weft-tests --test kube -- $(ARGS)

.PHONY: conformance
conformance: ## Run the Gateway API's official suite on a real Kubernetes, which is started for it (root). ARGS: tests/conformance/run says which
	@scripts/setup e2e
	$(CARGO) build --workspace --bins
	$(call link,debug)
	@tests/conformance/run $(ARGS)

.PHONY: ci
ci: ## What guards main: formatting, lints, dependencies, tests, demo, a real Kubernetes
	@.ci/run
