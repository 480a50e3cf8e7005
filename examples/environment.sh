# make_environment FOLDER: a Python virtual environment with a recent pip, on a machine that may have nothing else.
# Read by examples/quickstart.sh and tests/run.sh.

# Debian packages, as root or through sudo.
install_packages() {
    local sudo=""
    [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq "$@"
}

find_python() {
    local name
    for name in "${PYTHON:-}" python3.11 python3; do
        [ -n "$name" ] || continue
        if "$name" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "LAMKit needs Python 3.11 (MindSpore 2.10); set PYTHON=/path/to/python3.11" >&2
    return 1
}

make_environment() {
    local folder=$1 python
    [ -x "$folder/bin/python" ] && "$folder/bin/python" -m pip --version >/dev/null 2>&1 && return
    python=$(find_python)
    # Debian's python3 comes without venv
    "$python" -c 'import ensurepip' 2>/dev/null || install_packages python3.11-venv
    # MindSpore's wheel needs GNU OpenMP from the system
    "$python" -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null || install_packages libgomp1
    # LAMKit compiles its operators for this processor at first use; it also runs without, slower
    command -v g++ >/dev/null || install_packages g++
    "$python" -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet --upgrade pip
}
