"""Flip-angle trains: what appendix B of Liu et al. asks of each family, and files as people have them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxmr.sequences import trains
from jaxmr.units import deg, ms

N = 1120


@pytest.mark.parametrize("n", [N, 333])
@pytest.mark.parametrize("m", [5, 11])
def test_spline_passes_through_its_points_with_flat_ends(m, n):
    """Cubic between the points: through (0, 0) and (floor(i n / m), control), slope zero at both ends."""
    control = jnp.asarray(np.random.default_rng(m).uniform(0, 2, m))
    train = trains.spline(control, n)
    assert train.shape == (n,)
    knots = np.arange(1, m + 1) * n // m
    np.testing.assert_allclose(train[knots - 1], control, atol=1e-12)
    with_origin = np.concatenate([[0.0], train])
    assert with_origin[1] == pytest.approx(0, abs=2e-3)
    first = np.polynomial.Polynomial.fit(np.arange(20), with_origin[:20], 3)
    last = np.polynomial.Polynomial.fit(np.arange(n - 19, n + 1), with_origin[-20:], 3)
    assert first(0) == pytest.approx(0, abs=1e-12)
    assert first.deriv()(0) == pytest.approx(0, abs=1e-11)
    assert last.deriv()(n) == pytest.approx(0, abs=1e-9)
    # Between two knots the fourth difference of a cubic vanishes.
    between = with_origin[knots[1] + 1 : knots[2]]
    np.testing.assert_allclose(np.diff(between, 4), 0, atol=1e-12)
    # At a knot inside, the second derivative does not jump.
    second = np.diff(with_origin, 2)
    around = second[knots[1] - 3 : knots[1] + 2]
    assert np.abs(np.diff(around)).max() < 3 * np.abs(np.diff(second)).max() / 2


def test_sin_squared_is_the_formula_of_the_paper():
    amplitudes = np.array([0.5, 1.0, 2.0, 0.1, 1.5])
    train = trains.sin_squared(jnp.asarray(amplitudes), N)
    for n in (1, 17, 112, 223, 224, 225, 700, 1119, 1120):
        i = n % (N // 5)
        expected = amplitudes[min(n // (N // 5), 4)] * np.sin(np.pi * i / (N / 5)) ** 2
        assert train[n - 1] == pytest.approx(expected, abs=1e-15)
    np.testing.assert_allclose(train[111::224], amplitudes, atol=1e-15)
    assert trains.sin_squared(jnp.asarray(amplitudes), 1003).shape == (1003,)


def test_piecewise_constant_steps_at_its_edges():
    train = trains.piecewise_constant(jnp.array([1.0, 2.0, 3.0]), [4, 6], 8)
    np.testing.assert_array_equal(train, [1, 1, 1, 2, 2, 3, 3, 3])


@pytest.mark.parametrize("kind", trains.KINDS)
def test_random_trains_keep_the_limits_of_the_paper(kind):
    """Flips in 0 ... 120 degrees that use the range; a seed fixes the train, a generator moves on."""
    found = np.stack([trains.random_train(kind, 400, seed) for seed in range(20)])
    assert found.min() >= 0
    assert found.max() <= 120 * deg
    assert found.max() > 110 * deg
    assert len({train.tobytes() for train in found}) == 20
    np.testing.assert_array_equal(trains.random_train(kind, 400, 3), found[3])
    rng = np.random.default_rng(3)
    np.testing.assert_array_equal(trains.random_train(kind, 400, rng), found[3])
    assert np.any(trains.random_train(kind, 400, rng) != found[3])


def test_spline_overshoot_is_clipped():
    """Some spline leaves the range between its control points; the random train does not."""
    heights = [np.random.default_rng(seed).uniform(0, 120 * deg, 11) for seed in range(10)]
    raw = np.stack([trains.spline(jnp.asarray(height), 400) for height in heights])
    assert raw.min() < 0
    assert raw.max() > 120 * deg
    clipped = np.stack([trains.random_train("Spline11", 400, seed) for seed in range(10)])
    np.testing.assert_allclose(clipped, np.clip(raw, 0, 120 * deg), atol=1e-14)


def test_noise_has_variance_ten_square_degrees():
    """The same seed draws the same control points for Spline11, so the difference is the noise alone."""
    noise = []
    for seed in range(40):
        smooth = trains.random_train("Spline11", N, seed) / deg
        noisy = trains.random_train("SplineNoise11", N, seed) / deg
        inside = (smooth > 20) & (smooth < 100)  # where the clip does not reach
        noise.append(np.asarray(noisy - smooth)[inside])
    noise = np.concatenate(noise)
    assert len(noise) > 15000
    assert noise.mean() == pytest.approx(0, abs=0.1)
    assert noise.var() == pytest.approx(10, rel=0.05)
    assert (noise**4).mean() / noise.var() ** 2 == pytest.approx(3, rel=0.05)  # Gaussian
    assert np.corrcoef(noise[1:], noise[:-1])[0, 1] == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("n", [101, 130, N])
def test_pieces_last_at_least_twenty_pulses(n):
    """Distances of k_0 = 1, k_1 ... k_4, k_5 = n are at least 20, for the tightest train too, and vary."""
    starts = []
    for seed in range(60):
        train = np.asarray(trains.random_train("PieceConstant5", n, seed))
        edges = np.flatnonzero(np.diff(train)) + 2
        assert len(edges) == 4
        gaps = np.diff([1, *edges, n])
        assert gaps.min() >= 20
        starts.append(edges)
    assert (np.ptp(starts, axis=0) > 0).all() == (n > 101)
    if n == N:
        # Each edge is uniform over what the rule leaves: edge i at i / 5 of the train on average.
        np.testing.assert_allclose(np.mean(starts, axis=0) / n, np.arange(1, 5) / 5, atol=0.08)


def test_trains_are_differentiable_in_their_numbers():
    control = jnp.asarray(np.random.default_rng(0).uniform(0, 2, 5))

    def all_families(control):
        return (
            trains.spline(control, 60),
            trains.sin_squared(control, 60),
            trains.piecewise_constant(control, [10, 20, 30, 40], 60),
            trains.sine_lobes(control, 900),
        )

    check_grads(jax.jit(all_families), (control,), order=2, modes=["fwd", "rev"])


def test_sine_lobes_are_the_published_train(shared):
    """Jiang's 1000 pulses, which begin with the second of the first lobe; the fourth lobe comes one early."""
    published = trains.read(shared / "mrf/imr_jiang_TR_TE_FA.mat").flip
    ours = trains.sine_lobes(jnp.array([35, 43, 70, 45, 27]) * deg, 1001)
    difference = np.abs(ours[1:] - published) / deg
    assert difference[:628].max() < 0.02  # the file rounds to 0.01 and writes 0.01 for zero
    assert difference[838:].max() < 0.02


def test_fisp_sine_schedule():
    """Flips of 0 ... 70 degrees, TR of 11.5 ... 14.5 ms that changes smoothly, the same for the same seed."""
    schedule = trains.fisp_sine(1000, 7)
    assert schedule.te is None
    assert schedule.flip.shape == schedule.tr.shape == (1000,)
    assert schedule.flip.min() == 0
    assert 20 * deg < schedule.flip.max() <= 70 * deg
    assert schedule.tr.min() == pytest.approx(11.5 * ms)
    assert schedule.tr.max() == pytest.approx(14.5 * ms)
    assert np.abs(np.diff(schedule.tr)).max() < 0.3 * ms
    turns = np.count_nonzero(np.diff(np.sign(np.diff(schedule.tr))))
    assert 10 < turns < 80
    np.testing.assert_array_equal(trains.fisp_sine(1000, 7).tr, schedule.tr)
    assert np.any(trains.fisp_sine(1000, 8).tr != schedule.tr)
    assert np.any(trains.fisp_sine(1000, 8).flip != schedule.flip)


def test_published_trains(shared):
    """Jiang's train as MATLAB file, and again as the text file of another project."""
    jiang = trains.read(shared / "mrf/imr_jiang_TR_TE_FA.mat")
    yun = trains.read(shared / "mrf/openmrf_yun_fa.txt")
    assert yun.tr is None
    assert yun.te is None
    np.testing.assert_allclose(yun.flip / deg, jiang.flip / deg, atol=0.0101)
    np.testing.assert_allclose(jiang.tr, np.loadtxt(shared / "mrf/openmrf_yun_tr.txt") * ms, atol=1e-8)
    np.testing.assert_allclose(jiang.te, np.full(1000, 1.908 * ms), atol=1e-12)
    assert trains.read(shared / "mrf/openmrf_cao_fa.txt").flip.shape == (500,)


@pytest.mark.parametrize(
    "text",
    [
        "10,12,3\n20,13,3\n",
        "10;12;3\r\n20;13;3\r\n",
        "  10\t12\t3\n20\t13\t3",
        "10 12.0  3\n\n20 13.0  3\n",
        "tr,te,fa\n12,3,10\n13,3,20\n",
        "# FA (deg), TR (ms), TE (ms)\n10, 12, 3\n# a remark\n20, 13, 3\n",
        "TE_ms flip_angle TR_ms\n3 1e1 12\n3 2e1 13\n",
        "\ufeffFlip,TR,TE\n10,12,3\n20,13,3\n",
    ],
)
def test_text_in_any_layout(tmp_path, text):
    path = tmp_path / "train.csv"
    path.write_text(text, encoding="utf-8")
    schedule = trains.read(path)
    np.testing.assert_allclose(schedule.flip, np.array([10, 20]) * deg, rtol=1e-15)
    np.testing.assert_allclose(schedule.tr, np.array([12, 13]) * ms, rtol=1e-15)
    np.testing.assert_allclose(schedule.te, np.array([3, 3]) * ms, rtol=1e-15)


def test_matlab_scalars_are_shared(tmp_path):
    from scipy.io import savemat

    savemat(tmp_path / "train.mat", {"FA": [10.0, 20.0], "TR": 0.012, "notes": "none"})
    schedule = trains.read(tmp_path / "train.mat")
    assert schedule.tr.shape == ()
    assert schedule.tr == pytest.approx(12 * ms)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no numbers; write one line per pulse"),
        ("flip,tr\n", "holds no numbers"),
        ("10\nten\n", "line 2: expected numbers, got 'ten'"),
        ("angle,tr\n10,12\n", "line 1: expected numbers, got 'angle, tr'"),
        ("10,12\n20,nan\n", "tr of pulse 2 is nan"),
        ("inf\n", "flip of pulse 1 is inf"),
        ("0.1\n0.5\n1.2\n", "flips must be in degrees, but the largest is 1.2, as if in radians; convert"),
        ("10,12\n20\n", "must have the columns flip, tr on every line, got 1, 2 per line"),
        ("10,12,3,4\n", "must have the columns flip, tr, te on every line, got 4 per line"),
        ("fa,flip\n10,12\n", "must have the columns flip, flip"),
        ("tr,te\n12,3\n", "names no flip angles, only tr, te; call a column flip or fa"),
        ("10,0.012\n", "tr must be in milliseconds, but its shortest is 1.2e-05 s"),
        ("10,12,-3\n", "te must not be negative"),
        ("10,3,12\n", "te of pulse 1 is longer than its tr; check the order"),
    ],
)
def test_bad_text_says_what_to_do(tmp_path, text, message):
    path = tmp_path / "train.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        trains.read(path)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"FA": [10.0, 20.0], "TR": [12.0, 13.0]}, "tr must be in seconds, but its shortest is 12 s"),
        ({"FA": [10.0, 20.0], "TR": [0.012, 0.013, 0.014]}, "tr has 3 entries for 2 flips; give one or 2"),
        ({"FA": [10.0], "flip": [20.0]}, "two variables for flip"),
        ({"FA": "ten"}, "FA must hold real numbers"),
        ({"TR": [0.012]}, "names no flip angles, only tr"),
    ],
)
def test_bad_matlab_says_what_to_do(tmp_path, variables, message):
    from scipy.io import savemat

    savemat(tmp_path / "train.mat", variables)
    with pytest.raises(ValueError, match=message):
        trains.read(tmp_path / "train.mat")


def test_files_that_are_something_else(tmp_path):
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ValueError, match="is not text"):
        trains.read(tmp_path / "train.txt")
    (tmp_path / "train.mat").write_bytes(b"no MATLAB file" * 20)
    with pytest.raises(ValueError, match="save it with -v7"):
        trains.read(tmp_path / "train.mat")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trains.random_train("Spline7", 100, 0), "kind must be one of Spline5, .*got 'Spline7'"),
        (lambda: trains.random_train("PieceConstant5", 100, 0), "n must be at least 101 for 5 pieces"),
        (lambda: trains.spline(jnp.ones(5), 4), "control must have 1 ... n = 4 points, got 5"),
        (lambda: trains.sin_squared(jnp.ones(5), 4), "amplitudes must have 1 ... n = 4 entries, got 5"),
        (lambda: trains.piecewise_constant(jnp.ones(3), [1], 9), r"edges must have shape \(2,\)"),
        (
            lambda: trains.sine_lobes(jnp.ones(4), 841),
            "n must be 1 ... 210 per peak, got 841 for 4; add peaks",
        ),
        (lambda: trains.perlin(1, 0.0, 1.0, 0), "n must be at least 2, got 1"),
    ],
)
def test_bad_input_says_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
