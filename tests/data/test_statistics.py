"""Statistics of frames: against numpy on the same numbers, in one go, in parts, and through JSON."""

import json

import numpy as np
import pytest
from frames import frames, random_frame
from numpy.testing import assert_allclose

from lamkit.data import statistics_file
from lamkit.data.buckets import Buckets, Need, measure
from lamkit.data.dataset import open_dataset, write_dataset
from lamkit.data.frame import make_frame, volume
from lamkit.data.histogram import Axis, Histogram
from lamkit.data.label_sums import label_sums
from lamkit.data.neighbors import neighbor_list
from lamkit.data.statistics import FrameStatistics

MICRO_EV = 1e-6


def counted(some, **options):
    statistics = FrameStatistics(**options)
    for frame in some:
        statistics.add(frame)
    return statistics


def through_json(statistics):
    return FrameStatistics.from_json(json.loads(json.dumps(statistics.to_json())))


@pytest.fixture(scope="module")
def some():
    return frames(30) + frames(10, n_atoms=7, stress=None) + [random_frame(99, n_atoms=20, pbc=False)]


def test_moments_are_those_of_numpy(some):
    result = counted(some).result()
    forces = np.concatenate([f.forces for f in some])
    stress = np.concatenate([f.stress for f in some if f.stress is not None])
    assert result["normalisers"]["forces_rms"] == pytest.approx(np.sqrt((forces**2).mean()))
    assert result["normalisers"]["stress_rms"] == pytest.approx(np.sqrt((stress**2).mean()))
    assert result["labels"] == {"energy": 41, "forces": 41, "stress": 31, "stress_partly": 0}
    assert result["atoms_per_frame"]["max"] == 20
    assert result["periodic_axes"] == {"TTT": 40, "FFF": 1}
    per_atom = [volume(f) / len(f) for f in some if f.pbc.all()]
    assert result["distributions"]["volume_per_atom"]["max"] == pytest.approx(max(per_atom))
    assert result["distributions"]["volume_per_atom"]["median"] == pytest.approx(
        np.median(per_atom), rel=0.05
    )


def test_each_element_is_counted_with_its_forces(some):
    table = counted(some).result()["elements"]
    for symbol, z in (("H", 1), ("O", 8), ("Ti", 22)):
        on = np.concatenate([f.forces[f.numbers == z] for f in some])
        assert table[symbol]["atoms"] == len(on)
        assert table[symbol]["frames"] == sum((f.numbers == z).any() for f in some)
        assert table[symbol]["forces_rms"] == pytest.approx(np.sqrt((on**2).mean()))


def test_workers_together_count_what_one_counts(some):
    whole, parts = counted(some).result(), counted(some[:7])
    for start, stop in ((7, 8), (8, 33), (33, 41)):
        parts = through_json(parts)
        parts.merge(through_json(counted(some[start:stop])))
    merged = parts.result()
    assert merged["neighbors"]["closest"] == whole["neighbors"]["closest"]
    for mine, theirs in zip(merged["neighbors"]["settings"], whole["neighbors"]["settings"], strict=True):
        assert mine["edges_per_atom"] == pytest.approx(theirs["edges_per_atom"])
    assert merged["extremes"] == whole["extremes"]
    assert_allclose(
        list(merged["reference"]["energies"].values()),
        list(whole["reference"]["energies"].values()),
        atol=1e-9,
    )
    assert merged["reference"]["residual_std"] == pytest.approx(whole["reference"]["residual_std"], abs=1e-12)
    assert parts.histograms["force"].counts.tolist() == counted(some).histograms["force"].counts.tolist()


def test_json_loses_no_bit(some):
    statistics = counted(some)
    assert json.dumps(through_json(statistics).to_json()) == json.dumps(statistics.to_json())


def test_a_frame_added_after_a_look_is_counted_too(some):
    statistics = counted(some[:3])
    assert statistics.result()["n_frames"] == 3
    statistics.add(some[3])
    assert statistics.result()["n_frames"] == 4
    assert statistics.neighbors.n_counted == 4


def test_masked_stress_counts_where_it_is_known():
    masked = random_frame(0, stress=np.array([0.1, 0.2, 0.3, np.nan, np.nan, np.nan]))
    result = counted([masked]).result()
    assert result["labels"]["stress_partly"] == 1
    assert result["distributions"]["stress"]["n"] == 3
    assert result["distributions"]["pressure"]["max"] == pytest.approx(-0.2)


def test_neighbours_are_those_of_the_neighbour_list(some):
    counts = counted(some).neighbors
    for cutoff, limit in ((4.0, 20), (6.0, 120)):
        edges = [len(neighbor_list(f.positions, f.cell, f.pbc, cutoff, limit).senders) for f in some]
        setting = counts.setting(cutoff, limit)
        assert setting.edges.largest == max(edges)
        assert setting.edges.total == sum(edges)
        assert setting.density.mean() == pytest.approx(
            np.mean([e / len(f) for e, f in zip(edges, some, strict=True)])
        )
    assert counts.setting(4.2, 20) is None


def test_the_shortest_contact_of_each_pair_is_named_with_its_frame():
    close = make_frame([1, 8], [[0, 0, 0], [0, 0, 0.9]], source="near", step=7)
    far = make_frame([8, 1], [[0, 0, 0], [0, 0, 1.1]], source="far")
    contacts = counted([far, close]).result()["neighbors"]["closest"]
    assert contacts == [
        {
            "pair": "H-O",
            "distance": pytest.approx(0.9),
            "of_bond": pytest.approx(0.9 / 0.97),
            "where": "near, step 7",
        }
    ]


def test_sampled_neighbours_still_hold_the_largest_frame():
    small = [random_frame(i) for i in range(50)]
    large = random_frame(3, n_atoms=27)
    statistics = counted([*small[:25], large, *small[25:]], neighbors_every=10)
    assert statistics.neighbors.n_counted < 10
    assert statistics.neighbors.setting(4.0, 120).edges.largest == len(
        neighbor_list(large.positions, large.cell, large.pbc, 4.0, 120).senders
    )


@pytest.mark.parametrize("scale", ["linear", "log", "asinh"])
def test_quantiles_are_right_to_the_width_of_a_bin(scale):
    axis = {
        "linear": Axis("linear", -5, 5, 500),
        "log": Axis("log", 1e-3, 1e2, 500),
        "asinh": Axis("asinh", -50, 50, 500, 0.01),
    }[scale]
    values = np.random.default_rng(1).normal(size=4000)
    values = np.abs(values) + 1e-2 if scale == "log" else values
    histogram = Histogram(axis)
    histogram.add(values[:100])
    histogram.add(values[100:])
    for q in (0.01, 0.5, 0.99):
        assert histogram.quantile(q) == pytest.approx(np.quantile(values, q), abs=0.05)
    assert (histogram.quantile(0), histogram.quantile(1)) == (values.min(), values.max())
    assert histogram.rms() == pytest.approx(np.sqrt((values**2).mean()))


def test_what_lies_outside_the_bins_is_counted():
    histogram = Histogram(Axis("linear", 0, 1, 10))
    histogram.add([-3.0, 0.5, 7.0, 8.0, np.nan])
    assert (histogram.n, histogram.counts[0], histogram.counts[-1]) == (4, 1, 2)
    assert Histogram.from_json(json.loads(json.dumps(histogram.to_json()))).quantile(1) == 8.0


def lstsq_reference(dataset):
    """Least squares of numpy: fitted energies per atom and their residuals."""
    counts, _ = dataset.compositions()
    fractions = counts / counts.sum(axis=1, keepdims=True)
    energies = dataset.energies / counts.sum(axis=1)
    solution, _, rank, _ = np.linalg.lstsq(fractions, energies, rcond=3e-5)
    return fractions, fractions @ solution, energies, int(rank)


@pytest.mark.parametrize(
    ("name", "rank", "sentence"),
    [
        ("deepmd_water", 1, "only H2O: H and O cannot be told apart"),
        ("dpgen_MAPbI3_SCAN", 1, "only CH6I3NPb: H, C, N, I and Pb cannot be told apart"),
        ("nopbc_MN15", 1, "only C3H3O4: H, C and O cannot be told apart"),
    ],
)
def test_rank_deficient_sets_are_fitted_as_by_numpy_and_named(shared, name, rank, sentence):
    dataset = open_dataset(shared / "data" / name)
    fractions, fitted, energies, numpy_rank = lstsq_reference(dataset)
    fit = label_sums(dataset).composition.fit()
    assert fit.rank == numpy_rank == rank
    assert fit.null_space == [sentence]
    assert_allclose(fractions @ fit.reference[dataset.elements], fitted, atol=1e-9)
    assert fit.residual_std == pytest.approx((energies - fitted).std(), abs=1e-9)


@pytest.mark.parametrize("file", ["mptrj/mptrj-random-1k.xyz", "alexandria_pbe/alexandria-random-1k.xyz"])
def test_eighty_elements_are_fitted_as_by_numpy_in_any_number_of_parts(shared, file, tmp_path):
    from frames import kept, read_all

    some = kept(read_all("extxyz", shared / "data" / file))
    dataset = write_dataset(some, tmp_path / "d")
    fractions, fitted, energies, numpy_rank = lstsq_reference(dataset)
    merged = FrameStatistics(neighbors_every=1000)
    for start in range(0, len(some), 137):
        merged.merge(through_json(counted(some[start : start + 137], neighbors_every=1000)))
    fit = merged.labels.composition.fit()
    assert fit.rank == numpy_rank == len(dataset.elements) == fit.n_elements
    assert_allclose(fractions @ fit.reference[dataset.elements], fitted, atol=1e-10)
    assert fit.residual_std == pytest.approx((energies - fitted).std(), rel=1e-12)


def test_stored_statistics_are_used_only_for_the_frames_they_were_counted_on(tmp_path):
    given = frames(12)
    dataset = write_dataset(given, tmp_path / "d")
    assert statistics_file.load(dataset) is None
    marked = counted(given)
    marked.labels.n_atoms = -1  # tells the stored numbers from newly counted ones
    statistics_file.save(dataset, marked)
    assert statistics_file.labels_of(dataset.subset(np.arange(12))).n_atoms == -1
    assert statistics_file.labels_of(dataset.subset(np.arange(11))).n_atoms == 44  # a part is counted anew
    other = write_dataset(frames(13), tmp_path / "e")
    (tmp_path / "e" / "statistics.json").write_bytes((tmp_path / "d" / "statistics.json").read_bytes())
    assert statistics_file.load(other) is None
    (tmp_path / "d" / "statistics.json").write_text("{")
    assert statistics_file.load(open_dataset(tmp_path / "d")) is None


def test_stored_counts_give_the_padded_shape_that_reading_every_frame_gives(tmp_path):
    dataset = write_dataset(frames(40) + frames(5, n_atoms=20), tmp_path / "d")
    view = dataset.subset(np.arange(len(dataset)))
    sampled = measure(view, 4.0, 120, 60, seed=0)  # 45 frames: the sample is all of them
    statistics_file.save(dataset, statistics_file.count(dataset))
    stored = measure(view, 4.0, 120, 60, seed=0)
    assert stored == sampled
    assert stored.rare is None


def test_a_rare_huge_frame_does_not_pad_every_batch(tmp_path):
    dataset = write_dataset(frames(1500, n_atoms=2) + frames(1, n_atoms=27), tmp_path / "d")
    statistics_file.save(dataset, statistics_file.count(dataset))
    need = measure(dataset.subset(np.arange(len(dataset))), 4.0, 120, 10, seed=0)
    assert need.shape.n_atoms == 11
    assert need.rare.n_atoms == 28
    buckets = Buckets([need], [1.0])
    assert buckets.of_head(0) == need.shape
    assert need.rare in buckets.shapes
    assert Need(need.shape, 1.0).rare is None
