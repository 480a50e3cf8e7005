#!/usr/bin/env bash
# What takes longer than the usual tests: the slow ones, and exported students in DeePMD-kit and LAMMPS.
#   bash tests/nightly.sh                 downloads 3.2 GB into .venv-deepmd once
#   WITH_TORCH=1 bash tests/nightly.sh    and 6 GB: whether dp --pt train goes on from an exported student
set -euo pipefail
cd "$(dirname "$0")/.."
bash tests/deepmd_environment.sh "$PWD/.venv-deepmd"
if [ -x .venv-deepmd-torch/bin/python ]; then export LAMKIT_DEEPMD_PYTHON="$PWD/.venv-deepmd-torch/bin/python"; fi
LAMKIT_DEEPMD="$PWD/.venv-deepmd" exec bash tests/run.sh -m 'slow or deepmd' "$@"
