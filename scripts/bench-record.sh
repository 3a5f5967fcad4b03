#!/usr/bin/env bash
# Puts what the benchmarks have measured last into docs/benchmarks.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

only_help "usage: bench-record.sh [--help]

Replaces the figures of docs/benchmarks.md by what lies in target: bench-peers.md, which make bench-peers writes, and
bench-batching.txt, which make bench-batching writes. What was not measured stays as it is." "$@"

page=docs/benchmarks.md

# record MARKER FILE FENCE: puts FILE between the comments of MARKER, as a code block where FENCE is text.
record() {
    local marker=$1 file=$2 fence=$3
    [ -s "$file" ] || { say "$file is not there, its figures stay as they are"; return; }
    grep -q "^<!-- $marker " "$page" || die "$page has no place where $marker begins"
    grep -q "^<!-- /$marker -->" "$page" || die "$page has no place where $marker ends"
    awk -v marker="$marker" -v file="$file" -v fence="$fence" '
        index($0, "<!-- /" marker " -->") == 1 { within = 0 }
        !within { print }
        index($0, "<!-- " marker " ") == 1 {
            within = 1
            if (fence != "") print "```" fence
            while ((getline line < file) > 0) print line
            if (fence != "") print "```"
        }
    ' "$page" >"$page.new"
    mv "$page.new" "$page"
    say "$page has the figures of $file"
}

target=$(target_folder)
record bench-peers "$target/bench-peers.md" ""
record bench-batching "$target/bench-batching.txt" text
