#!/usr/bin/env bash
# Sets up a virtual environment in .venv-tests and runs the tests; arguments go to pytest.
#   bash tests/run.sh                 everything that takes minutes
#   bash tests/run.sh -m slow         what takes longer
set -euo pipefail
cd "$(dirname "$0")/.."
. examples/environment.sh
make_environment .venv-tests
.venv-tests/bin/python -m pip install --quiet --editable '.[test]'
exec .venv-tests/bin/python -m pytest "$@"
