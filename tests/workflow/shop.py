"""A workflow of fake stages, run through the real command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
STAGES = {"fake": "fake_stage"}

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

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(HERE / "drive.py"), *arguments]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(REPO)])}
        return subprocess.Popen(
            command, cwd=self.home, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def start_run(self, *flags: str) -> subprocess.Popen[str]:
        return self.start("run", "flow.yaml", "--out", "out", *flags)

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

    def diary(self) -> list[str]:
        path = self.home / "diary"
        return path.read_text().splitlines() if path.exists() else []

    def started(self) -> list[str]:
        """Stages in the order in which they were started; a continuation reads ``b+``."""
        words = [line.split() for line in self.diary()]
        return [w[0] + ("+" if w[-1] == "resume" else "") for w in words if w[1] == "start"]

    def forget(self) -> None:
        (self.home / "diary").unlink(missing_ok=True)
