#!/usr/bin/env bash
# What wants an accelerator, most wanted first. Each command goes on where it was cut off, so the same call may be made
# again until all is done; what it leaves under OUT is collected by the same `polyface reproduce` with --collect.
#
#   benchmarks/gpu.sh DATA OUT [SECONDS, default 540] [DEVICE, default cuda]
set -euo pipefail
data=$1 out=$2 end=$((SECONDS + ${3:-540})) device=${4:-cuda}

queue() { # run a command for what is left of the time; Ctrl-C lets it save first
    local left=$((end - SECONDS))
    [ "$left" -gt 20 ] || { echo "time is up before: $*"; exit 0; }
    timeout --signal=INT --kill-after=60 "$left" "$@" || [ $? -eq 124 ]
}

rows() { queue polyface reproduce "$@" --data "$data" --out "$out" --device "$device" --yes; }

rows progressive:small                                                 # all rows
rows tcdcn                                                             # rows as printed, of few labels, of 68 points
rows caricature:small --only "IRv1*"                                   # Inception-ResNet after dlib's network
rows caricature:optimisers
rows caricature:small
rows dmm-cnn:small                                                     # the rows that two cores take hours for
rows dmm-cnn --seeds 1 --only Baseline --only DMM-CNN                  # the paper's network and length
rows caricature --seeds 1 --only Photos --only Single-verif --only "Naive dynamic" \
    --only Dynamic                                                     # the paper's network, 160 px and length
rows progressive --seeds 1 --only encoder --only "encoder frozen: *"   # the paper's size
