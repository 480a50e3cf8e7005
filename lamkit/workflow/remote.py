"""What a job runs on the cluster: ``python -m lamkit.workflow.remote [NAMES]``, in the folder of its task.

One folder above lie ``job.json`` and ``inputs.tar``. The stage runs in a child process; what became of it,
a failure too, is packed into ``out.tar``, and the command ends well. Only when this very process is killed
(the node fails, the job is cancelled or out of time) does it end badly, and the job is sent again; it then goes
on with the parts or the checkpoint that it finds.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

from lamkit import config, console
from lamkit.errors import UserError
from lamkit.files import unpack
from lamkit.workflow import claims, code, cores, hashing, pool
from lamkit.workflow import folder as stage_folder
from lamkit.workflow.local import signal_words
from lamkit.workflow.task import load_stage
from lamkit.workflow.worker import die_with_parent, guarded

OUT, REMOTE_LOG = "out", "job-output.txt"
_CHILD, _PART = "--child", "--part"
_ASKED_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU)


def main(arguments: list[str]) -> int:
    """Run a task's command; returns the exit code."""
    if arguments[:1] == [_CHILD]:
        die_with_parent(int(arguments[1]))
        return guarded(Path(OUT), lambda: _work(arguments[2:]))
    if arguments[:1] == [_PART]:
        die_with_parent(int(arguments[1]))
        cores.settle_on([int(core) for core in arguments[3].split(",")])
        return guarded(Path(OUT), lambda: _work(arguments[2:3], alone=True))
    os.makedirs(OUT, exist_ok=True)
    with open(".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a job that was sent twice waits for its twin, and finds all done
        with open(Path(OUT) / REMOTE_LOG, "ab") as log:
            command = [sys.executable, "-m", "lamkit.workflow.remote", _CHILD, str(os.getpid()), *arguments]
            code_ = subprocess.run(command, stdout=log, stderr=log).returncode
        if -code_ in _ASKED_TO_END or code_ == 130:
            return 143
        if code_ < 0:
            time.sleep(3)  # who kills a job kills this process too; it lives, so it was the child alone
            stage_folder.write_json(
                Path(OUT) / stage_folder.ERROR, {"fault": "signal", "message": signal_words(-code_)}
            )
        _pack(arguments)
    return 0


def _work(names: list[str], *, alone: bool = False) -> None:
    console.setup()
    job = stage_folder.read_json(Path("..") / "job.json")
    (Path(OUT) / stage_folder.ERROR).unlink(missing_ok=True)
    own = code.of(job["module"], hashing.HashCache())
    different = [name for name in {**job["code"], **own} if own.get(name) != job["code"].get(name)]
    if different:
        raise UserError(
            f"the LAMKit of {sys.executable} on the cluster is another one: {different[0]} differs "
            f"({len(different)} files in all). Install the same version there"
        )
    _unpack_inputs(Path("..").resolve())
    sys.path.append(str(Path("..").resolve()))  # files that the user sent along
    os.environ["LAMKIT_PATH"] = os.pathsep.join(
        filter(None, [str(Path("../inputs/presets").resolve()), os.environ.get("LAMKIT_PATH")])
    )
    module = load_stage(job["stage"], job["module"])
    options = config.parse(module.Options, _found(job["options"]), origin=job["stage"])
    if names:
        _do_parts(module, options, names[0], alone)
        return
    if "resume" in module.Options.model_fields:
        options = options.model_copy(
            update={"resume": any(p.name != REMOTE_LOG for p in Path(OUT).iterdir())}
        )
    result = module.run(options, Path(OUT).resolve())
    text = json.dumps(result, default=str).replace(str(Path(OUT).resolve()), job["mark"])
    stage_folder.write_json(Path(OUT) / stage_folder.RESULT, json.loads(text))


def _do_parts(module: Any, options: Any, file: str, alone: bool) -> None:
    """The parts of this job, by as many processes as the job has cores for."""
    names = Path(file).read_text().split()
    mine = cores.available()[: int(os.environ.get("DPDISPATCHER_CPU_PER_NODE", "1"))]
    per_part = max(1, module.cores_per_part(options) or len(mine))
    n = min(len(mine) // per_part, len(claims.missing(Path(OUT), names)))
    if alone or n < 2:
        module.do_parts(options, Path(OUT), claims.claim(Path(OUT), names))
        return
    command = [sys.executable, "-m", "lamkit.workflow.remote", _PART, str(os.getpid()), file]
    pool.supervise([pool.start(command, share) for share in pool.shares(mine, n)], lambda: None)


def _found(value: Any) -> Any:
    """Options with the inputs where they were unpacked."""
    if isinstance(value, str):
        return str((Path("..") / value).resolve()) if value.startswith("inputs/") else value
    if isinstance(value, dict):
        return {key: _found(item) for key, item in value.items()}
    return [_found(item) for item in value] if isinstance(value, list) else value


def _unpack_inputs(home: Path) -> None:
    """Unpack the inputs once for all tasks of the submission."""
    with open(home / ".inputs.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "inputs").is_dir():
            temporary = home / f".inputs-{os.getpid()}"
            unpack(home / "inputs.tar", temporary)
            os.replace(temporary, home / "inputs")


def _pack(names: list[str]) -> None:
    """What is to be fetched: of parts those that were asked for, of a whole stage everything."""
    home = Path(OUT)
    if names:
        wanted = [claims.part(home, name) for name in Path(names[0]).read_text().split()]
        files = [*wanted, home / stage_folder.ERROR, home / REMOTE_LOG]
    else:
        files = sorted(home.iterdir())
    with tarfile.open("out.tar.tmp", "w") as tar:
        for path in files:
            if path.exists():
                tar.add(path, path.relative_to(home).as_posix())
    os.replace("out.tar.tmp", "out.tar")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
