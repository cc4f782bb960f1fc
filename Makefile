SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help build dashboard demo test runners chaos flood fuzz deny valkey bench-peers bench-micro check fmt

# One directory for everything that cargo builds; absolute, because the interop tests start the program elsewhere.
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))

help: ## show this
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

build: dashboard ## the program with its page, in target/release
	@cargo build --release --locked

# Without npm the program is built without the page, and says so in its place.
dashboard: ## the page, which the next build of the program embeds
	@if command -v npm >/dev/null; then dashboard/build; else echo 'no npm: the program is built without its page'; fi

demo: dashboard ## a server with real test jobs and a live view, in one terminal
	@cargo run --quiet -- demo

test: ## everything that CI checks; stops at the first failure
	@echo '== setup'
	@tests/setup
	@echo '== the page'
	@dashboard/build
	@$(MAKE) --no-print-directory check
	@echo '== documentation'
	@RUSTDOCFLAGS='-D warnings' cargo doc --no-deps
	@echo '== unit, integration and documentation tests'
	@cargo test
	@echo '== micro benchmarks, once through'
	@cargo test --bench micro
	@if command -v valgrind >/dev/null; then benches/callgrind --smoke encode owner-batch; fi
	@echo '== the comparison with other servers, tiny'
	@cargo build --quiet
	@cargo build --quiet --example floor
	@benches/peers/run.mjs --quick --tidings '$(TARGET)/debug/tidings' --floor '$(TARGET)/debug/examples/floor'
	@TIDINGS_FLOOR='$(TARGET)/debug/examples/floor' node --test --test-reporter=spec benches/peers/*.test.mjs
	@echo '== the client for front ends'
	@cd clients/js && npm run --silent build && TIDINGS_BIN='$(TARGET)/debug/tidings' npm test --silent
	@echo '== the page in a browser'
	@TIDINGS_BIN='$(TARGET)/debug/tidings' node --test --test-reporter=spec dashboard/test/*.test.mjs
	@echo '== interoperation with the official JavaScript client'
	@TIDINGS_BIN='$(TARGET)/debug/tidings' node --test --test-reporter=spec tests/interop/*.test.mjs

runners: ## real test runners that are dear to install (Jest, Vitest, Playwright, k6), 100 MB of output, reruns of nextest and go
	@tests/runners

chaos: ## the proofs of delivery at full size: kills, storms, a peer that never reads (a few minutes)
	@TIDINGS_TEST_LONG=1 cargo test --release --test integration -- --nocapture --test-threads=1 \
		model service::chaos service::cluster service::never_reads service::reconnect_storm \
		service::join_under_load

valkey: ## what is proven on Redis, on a Valkey that a Python package brings
	@tests/valkey

flood: ## bad clients of all kinds beside good ones, at full size (needs 3,500 descriptors; a minute)
	@TIDINGS_TEST_LONG=1 cargo test --release --test integration -- --nocapture service::limits::flood

bench-peers: ## speed and memory beside Node Socket.IO and a floor, in one run (a quarter of an hour)
	@benches/peers/run.mjs

bench-micro: ## what one message costs in each part: times, then instructions (needs valgrind)
	@cargo bench --bench micro
	@benches/callgrind
	@benches/callgrind --metrics

fuzz: ## random inputs, guided by coverage, for a minute in all after a build of its own (FUZZ_SECONDS=600: longer)
	@tests/fuzz/run $(or $(FUZZ_SECONDS),60)

deny: ## licences, sources and known faults of the dependencies
	@echo '== dependencies'
	@.ci/deny

check: ## formatting, lints and dependencies only
	@echo '== formatting'
	@cargo fmt --check
	@echo '== lints'
	@cargo clippy --all-targets -- -D warnings
	@$(MAKE) --no-print-directory deny

fmt: ## format the Rust code
	@cargo fmt
