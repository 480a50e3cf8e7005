"""Options of a stage from flags and ``--set``."""

import argparse

import pytest

from lamkit.cli.stages import options
from lamkit.errors import UserError
from lamkit.stages import distill


def parsed(*overrides):
    return argparse.Namespace(
        config=None, overrides=list(overrides), seed=None, device="CPU", resume=False, verb="distill"
    )


def test_set_changes_a_key_of_the_preset_that_a_flag_names(tmp_path):
    given = {"student": "deeppot-se"}
    plain = options(distill.Options, parsed(), tmp_path, given).student
    changed = options(distill.Options, parsed("student.axis=7"), tmp_path, given).student
    assert (plain.axis == 7, changed.axis) == (False, 7)
    assert changed.model_copy(update={"axis": plain.axis}) == plain


def test_a_mistyped_key_of_a_preset_is_refused(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'axis'"):
        options(distill.Options, parsed("student.axsi=7"), tmp_path, {"student": "deeppot-se"})
