"""A workflow of fake stages, run through the real command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lamkit.workflow import execute, spec, worker
from lamkit.workflow import folder as stage_folder
from lamkit.workflow.local import Ending
from lamkit.workflow.plan import Choice

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
STAGES = {"fake": "fake_stage", "label": "fake_parts"}

# a → b → d, a → c → d, e alone
DIAMOND = """\
name: diamond
description: four stages and one alone
stages:
  a:
    stage: fake
    with: {name: a, diary: "${here}/diary", reads: ["${here}/input.txt"]}
  b:
    stage: fake
    with:
      name: b
      diary: "${here}/diary"
      reads: ["${a}"]
      train: {max_steps: 2}
  c:
    stage: fake
    with: {name: c, diary: "${here}/diary", reads: ["${a}/product.txt"]}
  d:
    stage: fake
    with: {name: d, diary: "${here}/diary", reads: ["${b}", "${c}"]}
  e:
    stage: fake
    with: {name: e, diary: "${here}/diary"}
"""

# a → (train → test, repeated) → z
LEARN = """\
name: learning
description: a loop
stages:
  a:
    stage: fake
    with: {name: a, diary: "${here}/diary", reads: ["${here}/input.txt"]}
  learn:
    loop:
      first: {train: "${a}"}
      until: "${test}.steps >= 3"
      max_rounds: 4
      stages:
        train:
          stage: fake
          with: {name: t, diary: "${here}/diary", reads: ["${train@last}", "${test@past}"]}
        test:
          stage: fake
          with: {name: v, diary: "${here}/diary", reads: ["${train}"], train: {max_steps: "${round}"}}
  z:
    stage: fake
    with: {name: z, diary: "${here}/diary", reads: ["${learn}/train/product.txt"]}
"""


def workers(parent: int) -> list[int]:
    """Processes whose parent is ``parent``."""
    with open(f"/proc/{parent}/task/{parent}/children") as stream:
        return [int(word) for word in stream.read().split()]


class Here:
    """A worker that does its stage at once and in this process, as a child process would."""

    seconds = 0.0

    def __init__(self, folder: Path, lock: int, cores: list[int]) -> None:
        self.folder, self.cores = folder, cores

    def ended(self) -> Ending:
        code = worker.guarded(
            self.folder, lambda: worker.finish(self.folder, lambda m, o: m.run(o, self.folder))
        )
        error = stage_folder.read_json(self.folder / stage_folder.ERROR)
        return Ending(error["fault"], error["message"], 0.0) if code else Ending("", "", 0.0)

    def signal(self, number: int) -> None:
        pass

    def wait(self) -> None:
        pass

    def news(self) -> None:
        pass


@dataclass(frozen=True)
class Shop:
    """A folder with a workflow file, and the command to run it."""

    home: Path

    @property
    def out(self) -> Path:
        return self.home / "out"

    def write(self, text: str) -> None:
        (self.home / "flow.yaml").write_text(text)

    def edit(self, old: str, new: str) -> None:
        text = (self.home / "flow.yaml").read_text()
        assert old in text
        self.write(text.replace(old, new))

    def start(self, *arguments: str, here: bool = False) -> subprocess.Popen[str]:
        """Start the command line, with the stages of the tests; ``here``: with the real ones."""
        command = [sys.executable, *(("-m", "lamkit") if here else (str(HERE / "drive.py"),)), *arguments]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, [REPO] if here else [HERE, REPO])),
        }
        return subprocess.Popen(
            command, cwd=self.home, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def start_run(self, *flags: str) -> subprocess.Popen[str]:
        """Start the workflow, one stage after the other unless ``flags`` say otherwise."""
        one = () if "--jobs" in flags else ("--jobs", "1")
        return self.start("run", "flow.yaml", "--out", "out", *one, *flags)

    def run(self, *flags: str, code: int = 0) -> str:
        """Run the workflow; returns what was said on stderr."""
        process = self.start_run(*flags)
        _, said = process.communicate(timeout=120)
        assert process.returncode == code, said
        return said

    def verb(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        process = self.start(*arguments)
        answer, said = process.communicate(timeout=60)
        assert process.returncode == code, said
        return answer, said

    def here(self, *overrides: str, **choice: object) -> dict[str, str]:
        """Run the workflow in this process (fixture ``here``); returns the outcomes."""
        source = spec.load(self.home / "flow.yaml", overrides)
        done = execute.run(source, self.out, STAGES, execute.Settings(Choice(**choice)))
        return {name: outcome.state for name, outcome in done.items()}

    def diary(self) -> list[str]:
        path = self.home / "diary"
        return path.read_text().splitlines() if path.exists() else []

    def started(self) -> list[str]:
        """Stages in the order in which they were started; a continuation reads ``b+``."""
        words = [line.split() for line in self.diary()]
        return [w[0] + ("+" if w[-1] == "resume" else "") for w in words if w[1] == "start"]

    def forget(self) -> None:
        (self.home / "diary").unlink(missing_ok=True)
