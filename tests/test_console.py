"""What goes to the terminal and what goes to a run's own log."""

from lamkit import console


def test_a_quiet_terminal_leaves_the_log_file_complete(tmp_path, capsys):
    console.setup(-1)
    handler = console.log_to(tmp_path / "train.log")
    console.log.info("step 1")
    console.log.warning("odd frame")
    console.log_off(handler)
    console.setup(0)
    assert [line[20:] for line in (tmp_path / "train.log").read_text().splitlines()] == [
        "step 1",
        "odd frame",
    ]
    assert capsys.readouterr().err == "warning: odd frame\n"


def test_a_log_on_a_full_disk_does_without_its_lines_and_buries_nothing(capsys):
    console.setup(0)
    handler = console.log_to("/dev/full")
    try:
        console.log.warning("a line")
    finally:
        console.log_off(handler)
    assert "Traceback" not in capsys.readouterr().err


def test_progress_tells_the_time_left(capsys):
    console.setup(0)
    progress = console.Progress(10, "frames", every=0.0)
    with progress:
        progress.update(5, "halfway", left=3600.0)
        progress.update(5, "at most", left=0.0)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("frames 5/10, 0:00 so far")
    assert "halfway" in lines[0]
    assert "0:00 left" in lines[1]


def test_durations_read_like_clocks():
    assert [console.duration(s) for s in (5, 75, 4000)] == ["0:05", "1:15", "1:06:40"]


def test_a_table_lines_up():
    lines = console.table([("a", 1.5), ("long", 20)], ("name", "n")).splitlines()
    assert len({len(line) for line in lines}) == 1
