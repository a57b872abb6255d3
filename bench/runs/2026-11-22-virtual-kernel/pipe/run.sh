#!/bin/bash
# Everything in this folder, from the project's folder: bench/runs/2026-11-22-virtual-kernel/pipe/run.sh FOLDER
set -e
here=$(dirname "$(realpath "$0")")
out=$(realpath "$1")
scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT
cc -O2 -static -o "$scratch/neighbour" "$here/neighbour.c"
for cpus in 1 2; do
    for bench in "pipe -l 20000" "messaging -g 1 -l 400"; do
        # Two words: the kernel, and what the neighbour does.
        for case in "off slot" "minimal none" "minimal slot"; do
            set -- $case
            [ "$2" = slot ] && asks=yes || asks=
            for boot in 1 2; do
                echo "== $cpus CPUs, CONFIG $1, neighbour: $2, boot $boot: perf bench sched $bench"
                cargo xtask vm --config "$1" --icount --cpus "$cpus" --timeout 500 --folder "$scratch" --with neighbour --with "$(command -v perf)" -- \
                    sh -c "./neighbour $asks & sleep 1; exec perf bench sched $bench" </dev/null
            done
        done
    done
done >"$out/raw.txt"
