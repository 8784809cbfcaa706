# Two commands are enough: `make demo` shows what Evenkeel does, `make test` shows that it works.
# `make help` lists the rest. Needed: rustup, a C compiler, make. Tools that a target needs besides are
# built into target/tools; nothing outside of this folder is changed but rustup's own toolchains.

CARGO ?= cargo
TOOLS := $(CURDIR)/target/tools
export PATH := $(TOOLS)/bin:$(PATH)

TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
EVENKEEL := $(TARGET)/release/evenkeel
SEED := 1
RUNS := 10000000
LENGTH := 256

CARGO_DENY_VERSION := 0.20.2
CARGO_FUZZ_VERSION := 0.13.2
MDBOOK_VERSION := 0.5.4
# The runner and the library must be of one version: the one in Cargo.lock.
GUNGRAUN_VERSION = $(shell awk '/^name = "gungraun"$$/ { getline; gsub(/"/, ""); print $$3 }' Cargo.lock)

# Tools are built without optimisation: they run for seconds, and compile in a third of the time.
INSTALL := CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR=$(TOOLS)/build \
           $(CARGO) install --quiet --locked --debug --root $(TOOLS)

.DEFAULT_GOAL := help
.PHONY: help toolchain build demo test test-exhaustive lint lint-format lint-clippy lint-engine lint-deny \
        bench swaps bench-instructions bench-memory bench-sim bench-e2e truth reproduce docs fuzz clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

toolchain: # what rust-toolchain.toml names; cargo does not install it itself where RUSTUP_AUTO_INSTALL=0
	@command -v rustup > /dev/null || { echo "rustup is missing: see https://rustup.rs" >&2; exit 1; }
	@command -v cc > /dev/null || { echo "a C compiler is missing: install gcc or clang" >&2; exit 1; }
	@said=$$(rustup toolchain install --no-self-update 2>&1) || said=$$(rustup show active-toolchain 2>&1) \
	  || { echo "$$said" >&2; exit 1; }

build: toolchain ## the binary, optimised: target/release/evenkeel
	$(CARGO) build --release --locked --package evenkeel-cli

demo: build ## one scenario in the simulator and through a real TUN, side by side
	@$(EVENKEEL) demo --seed $(SEED)

test: toolchain ## every test, and a replay of the fuzz corpus
	@if $(CARGO) nextest --version > /dev/null 2>&1; then \
	  echo "$(CARGO) nextest run --workspace --locked --no-fail-fast" && \
	  $(CARGO) nextest run --workspace --locked --no-fail-fast && \
	  echo "$(CARGO) test --doc --workspace --locked" && \
	  $(CARGO) test --doc --workspace --locked; \
	else \
	  echo "$(CARGO) test --workspace --locked --no-fail-fast" && \
	  $(CARGO) test --workspace --locked --no-fail-fast; \
	fi
	@if [ "$$($(TARGET)/debug/evenkeel lab-child probe)" != "[]" ]; then \
	  echo "SKIPPED: the tests that need network namespaces and a TUN, for this reason:"; \
	  $(TARGET)/debug/evenkeel lab run netns-lab/tests/scenarios/direct.toml; true; \
	fi

test-exhaustive: toolchain ## small spaces, all of them: 2^32 checksums (release, a minute at most)
	$(CARGO) test --release --locked --package evenkeel-engine --test exhaustive

lint: lint-format lint-clippy lint-engine lint-deny ## format, clippy, the engine without std, dependencies

lint-format: toolchain
	$(CARGO) fmt --all --check

lint-clippy: toolchain
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

lint-engine: toolchain # a clock, a socket or a thread in the engine is a compile error there
	$(CARGO) build --package evenkeel-engine --target wasm32v1-none --locked

lint-deny: toolchain
	@command -v cargo-deny > /dev/null || { \
	  echo "building cargo-deny $(CARGO_DENY_VERSION) into target/tools (about two minutes, once)"; \
	  $(INSTALL) --version $(CARGO_DENY_VERSION) cargo-deny; }
	cargo-deny --locked check licenses bans sources
	@sh .ci/advisories

bench: toolchain ## criterion: parse, lookup, rewrite, schedule (native and WASM), whole engine
	$(CARGO) bench --locked --package evenkeel-benches --bench engine
	$(CARGO) bench --locked --package evenkeel-plugin-host --bench schedule

bench-instructions: toolchain ## instruction counts under valgrind, compared with the stored ones
	@command -v valgrind > /dev/null || { echo "valgrind is missing (Debian: apt-get install valgrind)" >&2; exit 1; }
	@test "$$(gungraun-runner --version 2> /dev/null | awk '{ print $$NF }')" = "$(GUNGRAUN_VERSION)" || { \
	  echo "building gungraun-runner $(GUNGRAUN_VERSION) into target/tools (once)"; \
	  $(INSTALL) --force --version $(GUNGRAUN_VERSION) gungraun-runner; }
	@mkdir -p $(TARGET)
	$(CARGO) bench --quiet --locked --package evenkeel-benches --package evenkeel-plugin-host \
	  --bench instructions --bench components -- --output-format=json > $(TARGET)/instructions.jsonl
	$(CARGO) run --quiet --locked --release --package evenkeel-benches --bin ratchet -- benches/instructions.json $(if $(WRITE),--write) < $(TARGET)/instructions.jsonl

bench-memory: toolchain ## resident memory of 1,048,576 established flows
	$(CARGO) run --quiet --locked --release --package evenkeel-benches --bin memory

bench-sim: toolchain ## speed and memory of the simulator, beside the bars
	$(CARGO) test --release --locked --package evenkeel-sim --test speed --test flow_speed --test memory -- --ignored --nocapture --test-threads 1

swaps: toolchain ## a thousand changes of the scheduler under load, through the real forwarder (half a minute)
	$(CARGO) build --locked --package evenkeel-cli
	$(CARGO) test --locked --package evenkeel-netns-lab --test lab -- --ignored --nocapture --exact scheduler_changes_a_thousand_times_under_load

truth: toolchain ## the simulator against theory, at full length: writes docs/src/truth.md (some minutes)
	$(CARGO) test --release --locked --package evenkeel-sim --test truth -- --ignored --nocapture --exact write_the_page

reproduce: toolchain ## published figures of JET and Cheetah, side by side: writes docs/src/reproduce.md
	$(CARGO) test --release --locked --package evenkeel-sim --test reproduce -- --ignored --nocapture --exact write_the_page

bench-e2e: build ## the forwarder against the kernel's NAT and others, on namespaces (root)
	$(CARGO) run --release --locked --package evenkeel-bench-e2e

docs: toolchain ## the book and the API pages
	$(CARGO) doc --workspace --no-deps --locked
	@command -v mdbook > /dev/null || { \
	  echo "building mdbook $(MDBOOK_VERSION) into target/tools (once)"; \
	  $(INSTALL) --version $(MDBOOK_VERSION) mdbook; }
	mdbook build docs

fuzz: toolchain ## cargo fuzz on the whole engine, 10^7 executions of up to 256 bytes, or RUNS=n LENGTH=n, FUZZ=rules for the text of rules (a nightly toolchain)
	@command -v cargo-fuzz > /dev/null || { \
	  echo "building cargo-fuzz $(CARGO_FUZZ_VERSION) into target/tools (once)"; \
	  $(INSTALL) --version $(CARGO_FUZZ_VERSION) cargo-fuzz; }
	cd benches && $(CARGO) +nightly fuzz run --sanitizer none --no-trace-compares $(or $(FUZZ),engine) -- \
	  -runs=$(RUNS) -max_len=$(LENGTH) -entropic=0 -reduce_inputs=0

clean: ## everything that was built
	$(CARGO) clean
