#!/usr/bin/env bash
# Sets up a virtual environment in .venv-tests and runs the tests, several at once; arguments go to pytest.
#   bash tests/run.sh                 everything that takes minutes
#   bash tests/run.sh -m slow         what takes longer
#   bash tests/run.sh -n 0 -k word    one after the other, those that a word names
set -euo pipefail
cd "$(dirname "$0")/.."
. examples/environment.sh
# Programs that some tests run for real: a scheduler, a DFT code, a browser. Where they cannot be installed
# (no root, no Debian, no network), those tests are skipped and say why.
install_programs() {
    local missing=() name
    for name in g++ procps slurm-wlm cp2k cp2k-data chromium fonts-dejavu-core; do
        dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q '^install ok' || missing+=("$name")
    done
    [ ${#missing[@]} = 0 ] && return
    echo "installing ${missing[*]}" >&2
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        "${missing[@]}"; } >/dev/null 2>&1 || echo "not installed: ${missing[*]}" >&2
}
if [ "$(id -u)" = 0 ] && command -v apt-get dpkg-query >/dev/null; then install_programs; fi
make_environment .venv-tests
.venv-tests/bin/python -m pip install --quiet --editable '.[test]'
# A process a core, of 4 GiB at the end (compiled graphs stay); the tests of a file share one, and what they made.
exec .venv-tests/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"
