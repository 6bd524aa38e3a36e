#!/usr/bin/env bash
# Has the behaviour of the core changed? For a change that only moves things: runs what is compared, and shows each line that differs
# from scripts/same-behaviour.txt. A change that is meant to alter behaviour writes that file anew (--write) and says so in its commit.
#
#   scripts/same-behaviour.sh           seeds, single faults, scenarios            about 3 minutes
#   scripts/same-behaviour.sh --all     with the model check's counts of states    some minutes more
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
expected=scripts/same-behaviour.txt

measure() {
    cargo run --quiet --locked -p mainstay-sim --example fingerprint -- 4096
    [ "$all" = yes ] || return 0
    # One test at a time, so that the lines have an order. Explorations that end with a finding are left out: where they end is chance.
    cargo test --quiet --locked -p mainstay-check --test bounded --test broken_rules -- --nocapture --test-threads 1 |
        sed -nE 's/^.*[^0-9]?\b([0-9]+ states), .*, complete.*/model check: \1/p'
}

all=no write=no
for argument in "$@"; do
    case "$argument" in
        --all) all=yes ;;
        --write) all=yes write=yes ;;
        *) echo "usage: $0 [--all | --write]" >&2; exit 2 ;;
    esac
done

now=$(measure)
if [ "$write" = yes ]; then
    printf '%s\n' "$now" >"$expected"
    exit
fi
then=$(cat "$expected")
[ "$all" = yes ] || then=$(grep -v '^model check' "$expected")
if [ "$now" = "$then" ]; then
    echo "$now"
    echo "the same behaviour"
else
    diff <(echo "$then") <(echo "$now") || true
    echo "the behaviour has changed: lines with < are expected, lines with > were measured" >&2
    exit 1
fi
