"""A real Slurm of one node, without munge, started for the tests in a folder and on ports of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")


def why_not() -> str:
    """Why Slurm cannot be started here; empty if it can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: slurm-wlm)"
    return "" if os.geteuid() == 0 else "slurmd has to be started as root"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def settings(root: Path) -> str:
    """The smallest configuration: two cores, no accounts, no cgroups, nothing outside of ``root``."""
    words = {
        "ClusterName": "lamkit",
        "SlurmctldHost": "localhost",
        "SlurmctldPort": free_port(),
        "SlurmdPort": free_port(),
        "AuthType": "auth/none",
        "CredType": "cred/none",
        "SlurmUser": "root",
        "ProctrackType": "proctrack/pgid",
        "TaskPlugin": "task/none",
        "SwitchType": "switch/none",
        "MpiDefault": "none",
        "AccountingStorageType": "accounting_storage/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "SchedulerType": "sched/backfill",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        "ReturnToService": 2,
        "KillWait": 2,
        "SlurmdParameters": "config_overrides",  # believe the line below, whatever the machine has
        "SlurmctldPidFile": root / "ctld.pid",
        "SlurmdPidFile": root / "d.pid",
        "StateSaveLocation": root / "state",
        "SlurmdSpoolDir": root / "spool",
        "SlurmctldLogFile": root / "ctld.log",
        "SlurmdLogFile": root / "d.log",
    }
    lines = [f"{name}={value}" for name, value in words.items()]
    lines += ["NodeName=localhost CPUs=2 RealMemory=1000 State=UNKNOWN"]
    lines += ["PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP"]
    return "\n".join(lines) + "\n"


class Slurm:
    """Context manager: both daemons run, and ``SLURM_CONF`` says where they are."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Slurm:
        for name in ("state", "spool"):
            (self.root / name).mkdir(parents=True)
        conf = self.root / "slurm.conf"
        conf.write_text(settings(self.root))
        os.environ["SLURM_CONF"] = str(conf)
        for command in (["slurmctld", "-D", "-i"], ["slurmd", "-D", "-N", "localhost"]):
            self._daemons.append(
                subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
        deadline = time.monotonic() + 30
        while "idle" not in self.ask("sinfo", "-h", "-o", "%T"):
            if time.monotonic() > deadline:
                logs = [self.root / name for name in ("ctld.log", "d.log")]
                text = "\n".join(log.read_text()[-1000:] for log in logs if log.exists())
                self.__exit__()
                raise RuntimeError(f"Slurm did not come up: {text}")
            time.sleep(0.2)
        return self

    def __exit__(self, *error: object) -> None:
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        os.environ.pop("SLURM_CONF", None)

    def ask(self, *command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout

    def jobs(self, state: str = "") -> list[str]:
        """Ids of the jobs that wait or run."""
        states = ["-t", state] if state else ["-t", "PD,R"]
        return self.ask("squeue", "-h", "-o", "%i", *states).split()

    def cancel(self, job: str) -> None:
        self.ask("scancel", job)
