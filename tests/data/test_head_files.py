import shutil

import numpy as np
import pytest

from lamkit import config, presets
from lamkit.data.heads import HeadConfig, load_head, open_or_convert_head
from lamkit.errors import UserError


@pytest.mark.parametrize("name", sorted(presets.files("heads")))
def test_every_shipped_head_loads_and_is_named_like_its_file(name):
    assert load_head(name).name == name


def test_a_wrong_element_symbol_is_refused():
    with pytest.raises(UserError, match="no element symbol"):
        config.parse(
            HeadConfig,
            {"name": "a", "level_of_theory": {"method": "DFT", "functional": "PBE"}, "elements": ["Xx"]},
        )


def test_the_prior_is_an_array_by_atomic_number():
    theory = {"method": "DFT", "functional": "PBE"}
    head = config.parse(
        HeadConfig, {"name": "a", "level_of_theory": theory, "reference_prior": {"O": -432.0}}
    )
    assert head.prior()[8] == -432.0
    assert np.isnan(head.prior()[1])


def test_shipped_data_are_converted_once(tmp_path, shared):
    shutil.copy(shared / "data/sevennet_hfo2/hfo2.extxyz", tmp_path / "hfo2.extxyz")
    theory = {"method": "DFT", "functional": "SCAN"}
    source = {"path": str(tmp_path / "hfo2.extxyz"), "licence": "MIT"}
    head = config.parse(HeadConfig, {"name": "hfo2_scan", "level_of_theory": theory, "source": source})
    path = open_or_convert_head(head, tmp_path / "cache")
    before = (path / "dataset.yaml").stat().st_mtime_ns
    assert open_or_convert_head(head, tmp_path / "cache") == path
    assert (path / "dataset.yaml").stat().st_mtime_ns == before


def test_data_that_are_not_here_are_asked_for_with_the_address():
    source = {"url": "https://example.org/x.json", "filename": "x.json", "size_bytes": 11_400_000_000}
    theory = {"method": "DFT", "functional": "PBE"}
    head = config.parse(HeadConfig, {"name": "a", "level_of_theory": theory, "source": source})
    with pytest.raises(UserError, match=r"x\.json \(11\.4 GB\) from https://example\.org"):
        open_or_convert_head(head, None)
