# The commands of the README. Everything they need they set up themselves; see `make help`.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

HOSTS ?= 3
VMS ?= 6
FAIL ?= busiest
TIMING ?= standard
RUNS ?= 10

export CARGO_TERM_COLOR ?= auto

help: ## this text
	@echo "make demo [HOSTS=5 VMS=10 FAIL=primary TIMING=swift]  a host loses power; its VMs run again elsewhere"
	@echo "make lab  [HOSTS=3 VMS=6]                             the same lab, left standing to play with; 'make lab-down' removes it"
	@echo "make test                                             all tests, live ones included (these need root)"
	@echo "make bench [RUNS=10]                                  the figures: failover times and footprint"
	@echo "make check                                            formatter, linter and rustdoc only"
	@echo "make house                                            figures of the sources, with their limits and goals"

packages: ## Debian packages that building and the lab need
	@scripts/install-packages.sh

build: packages
	cargo build --release --locked -p mainstay-ctl -p mainstay-lab -p mainstay-guard

demo: build ## the main job, shown
	target/release/mainstay-lab demo --hosts $(HOSTS) --vms $(VMS) --fail $(FAIL) --timing $(TIMING)

lab: build ## a lab to play with
	target/release/mainstay-lab up --hosts $(HOSTS) --vms $(VMS) --timing $(TIMING) --agents --keep
	@echo
	@echo "Try:  target/release/mainstay --host h2 status"
	@echo "      target/release/mainstay-lab host off h1        (and 'host on h1 --agent')"
	@echo "Done: make lab-down"

lab-down:
	target/release/mainstay-lab down

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked

house: ## figures of the sources
	scripts/house.sh

test: packages check ## all tests
	scripts/test.sh

bench: build ## figures
	target/release/mainstay-lab bench --runs $(RUNS)

.PHONY: help packages build demo lab lab-down check house test bench
