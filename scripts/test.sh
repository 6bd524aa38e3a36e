#!/usr/bin/env bash
# All tests: unit and property tests, the simulator's scenarios and seeds, then the live tests on a lab of real hosts.
# Live tests need root and namespaces. Without them they are skipped and say so; with CI=true that is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

# The live tests run the agent as it is built here.
cargo build --locked -p mainstay-ctl -p mainstay-lab -p mainstay-guard
cargo test --locked --workspace --no-fail-fast
