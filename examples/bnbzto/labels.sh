#!/usr/bin/env bash
# Computes the labels of the sixteen arrangements with CP2K: four minutes a frame on one core. Stop it at any time;
# the same command goes on. Another set of structures is the first argument, the folder to write the second.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
structures="${1:-bnbzto-structures/data}"
out="${2:-bnbzto-labels}"
if [ ! -e "$structures" ]; then
    lamkit generate "$here/../data/perovskite.vasp" --supercell 2 2 2 --site Ba=Ba4Na2Bi2 --site Ti=Ti7Zr1 \
        --perturb 1 --distance 0.15 --cell 0.03 --seed 7 --out bnbzto-structures
fi
if [ -e "$out" ]; then
    lamkit label --out "$out" --resume
else
    lamkit label "$here/cp2k.yaml" --data "$structures" --out "$out"
fi
lamkit data export "$out/data" --to extxyz --out "$out/labels.extxyz" -q
echo "the labels, for ASE and others: $out/labels.extxyz"
