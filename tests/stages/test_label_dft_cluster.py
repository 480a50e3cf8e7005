"""Labels by a DFT program on a cluster: only the program's own files travel, and LAMKit is not needed there."""

from __future__ import annotations

import json

from test_label_dft import BAD, GOOD, Bench

from lamkit import config
from lamkit.cli import main
from lamkit.data.dataset import open_dataset
from lamkit.workflow import journal


def test_dft_tasks_are_grouped_into_jobs_and_failures_of_the_program_are_not_sent_again(
    shared, tmp_path, monkeypatch
):
    bench = Bench(tmp_path, shared, [*GOOD, BAD[0]])
    options = {k: v for k, v in config.dump(bench.options()).items() if v is not None}
    config.write_yaml(
        tmp_path / "flow.yaml", {"name": "dft", "stages": {"label": {"stage": "label", "with": options}}}
    )
    (tmp_path / "far").mkdir()
    machine = {"batch_type": "Shell", "context_type": "LocalContext", "remote_root": str(tmp_path / "far")}
    cluster = {
        "machine": {**machine, "remote_profile": {"symlink": False}},
        "resources": {"group_size": 2},
        "python": "/no/such/python",
        "poll_seconds": 0.3,
    }
    (tmp_path / "cluster.yaml").write_text(json.dumps(cluster))
    monkeypatch.chdir(tmp_path)
    assert main(["run", "flow.yaml", "--out", "out", "--on", "cluster.yaml"]) == 0
    result = json.loads((tmp_path / "out/label/result.json").read_text())
    assert (result["n_frames"], result["n_failed"]) == (3, 1)
    assert len(open_dataset(tmp_path / "out/label/data")) == 3
    (sent,) = [e for e in journal.read(tmp_path / "out/journal.jsonl") if e["event"] == "submitted"]
    assert (sent["tasks"], sent["jobs"]) == (4, 2)
    assert bench.calls == 4
    assert not any((tmp_path / "far").iterdir())
