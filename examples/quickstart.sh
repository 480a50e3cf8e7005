#!/usr/bin/env bash
# Sets up a virtual environment in .venv and runs the whole chain on the sample data:
# convert, pre-train, fine-tune, distil, evaluate, report. Once more: it goes on, or finds nothing to do.
set -euo pipefail
cd "$(dirname "$0")/.."
. examples/environment.sh
make_environment .venv
.venv/bin/python -m pip install --quiet .
.venv/bin/lamkit run workflows/quickstart.yaml --out quickstart "$@"
echo "The report: $PWD/quickstart/report/report.html"
