#!/usr/bin/env bash
# The figures of the house: how large, tangled and hard to read the sources are, with limits and goals (crates/tidy).
#
#   scripts/house.sh             the table
#   scripts/house.sh KEY         the places behind one figure
#   scripts/house.sh --rustdoc   the table, and the number of rustdoc's warnings (half a minute)
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = --rustdoc ]; then
    cargo run --quiet --locked -p mainstay-tidy
    # What was documented before without a change is not documented again, and warns no more: hence a folder of its own.
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    warnings=$(cargo doc --locked --workspace --no-deps --document-private-items --target-dir "$folder" 2>&1 |
        grep -c -E '^(warning|error)(\[|:)' || true)
    echo "rustdoc: $warnings lines of warnings (goal 0)"
else
    cargo run --quiet --locked -p mainstay-tidy -- "$@"
fi
