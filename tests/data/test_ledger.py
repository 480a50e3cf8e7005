import csv
import json

from lamkit.data.ledger import FileEntry, Ledger, Lines


def test_steps_in_a_row_are_one_range():
    line = Lines()
    for step in (0, 1, 2, 7, 9, 10):
        line.add(step, None, 1)
    line.add(11, 15, 5)
    line.add(None, None, 3)
    assert line.words() == "0-2, 7, 9-15"
    assert line.count == 14
    assert line.words(1) == "0-2, … (2 more)"


def test_a_million_dropped_frames_stay_small():
    line = Lines()
    for step in range(0, 1_000_000, 2):  # the worst case: no two in a row
        line.add(step, None, 1)
    assert line.ranges.buffer_info()[1] * line.ranges.itemsize < 10_000_000


def ledger():
    found = Ledger()
    entry = found.file("a/OUTCAR", "vasp/outcar")
    entry.keep(5)
    entry.drop("not converged", 3)
    entry.drop("not converged", 4)
    entry.drop("cut off", count=2)
    entry.flag("no stress", 0, 5, last=4)
    entry.theory({"functional": "PBE", "code": "VASP 6.3"}, 5)
    found.file("b").error = "b: broken"
    found.ignored.append("notes.txt")
    return found


def test_parts_of_one_file_come_together():
    first, second = ledger(), Ledger()
    later = second.file("a/OUTCAR")
    later.keep(2)
    later.drop("not converged", 5)
    later.theory({"functional": "PBE", "code": "VASP 6.3"}, 2)
    first.merge(Ledger.from_json(json.loads(json.dumps(second.to_json()))))
    assert first.kept == 7
    assert first.total("dropped") == {"not converged": 3, "cut off": 2}
    assert first.files["a/OUTCAR"].as_dict()["steps"]["dropped"] == {"not converged": "3-5"}
    assert first.theories() == [
        {"functional": "PBE", "code": "VASP 6.3", "frames": 7, "files": 1, "example": "a/OUTCAR"}
    ]


def test_json_keeps_everything():
    found = ledger()
    again = Ledger.from_json(json.loads(json.dumps(found.to_json())))
    assert again.as_dict() == found.as_dict()
    assert again.ignored == ["notes.txt"]


def test_every_frame_has_its_line_in_the_table(tmp_path):
    ledger().write_csv(tmp_path / "report.csv")
    rows = list(csv.DictReader((tmp_path / "report.csv").open()))
    assert [(r["outcome"], r["reason"], r["first_step"], r["last_step"], r["frames"]) for r in rows] == [
        ("dropped", "not converged", "3", "4", "2"),
        ("dropped", "cut off", "", "", "2"),
        ("flagged", "no stress", "0", "4", "5"),
        ("not read", "b: broken", "", "", ""),
    ]


def test_what_the_command_line_promises_is_there():
    told = ledger().as_dict()
    assert (told["kept"], told["dropped"], told["remarks"]) == (
        5, {"not converged": 2, "cut off": 2}, {"no stress": 5},
    )  # fmt: skip
    assert {"path", "format", "kept", "dropped", "error"} <= told["files"][0].keys()
    assert FileEntry("x").as_dict()["error"] is None
