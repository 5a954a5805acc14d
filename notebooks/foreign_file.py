# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A foreign .seq, its flips and its RF shape optimised, and written back
#
# A file that somebody else's script made, here a spoiled gradient echo of 48 lines by plain PyPulseq: every pulse a
# 1 ms Gauss of 15 degrees, played from rest. Two things are not as one would wish. The slice is round at its
# shoulders, and the signal falls from the first line to the last while it approaches the steady state, which blurs.
# Both are numbers of the file: the RF samples, and the flips. They are read, turned until they are good, and put back
# into the file, of which everything else stays.

# %%
import tempfile
import warnings
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxmr as mr
from jaxmr.units import deg, mm, ms, us

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pypulseq as pp

plt.rcParams["figure.dpi"] = 90
folder = Path(tempfile.mkdtemp())
LINES, FOV, THICKNESS = 48, 0.192, 5 * mm


# %%
def foreign(path):
    """Somebody's gradient echo, by PyPulseq."""
    system = pp.Opts(max_grad=40, grad_unit="mT/m", max_slew=150, slew_unit="T/m/s", rf_ringdown_time=20 * us)
    seq = pp.Sequence(system)
    rf, gz, rephaser = pp.make_gauss_pulse(
        15 * deg, duration=1 * ms, slice_thickness=THICKNESS, time_bw_product=4, return_gz=True, system=system,
        use="excitation",
    )  # fmt: skip
    read = pp.make_trapezoid("x", flat_area=LINES / FOV, flat_time=1.92 * ms, system=system)
    adc = pp.make_adc(LINES, duration=1.92 * ms, delay=read.rise_time, system=system)
    before = pp.make_trapezoid("x", area=-read.area / 2, duration=1 * ms, system=system)
    spoiler = pp.make_trapezoid("z", area=4 / THICKNESS, duration=1.5 * ms, system=system)
    for i in range(LINES):
        rf.phase_offset = adc.phase_offset = 117 * deg * i * (i + 1) / 2 % (2 * np.pi)
        along = pp.make_trapezoid("y", area=(i - LINES // 2) / FOV, duration=1 * ms, system=system)
        seq.add_block(rf, gz)
        seq.add_block(before, along, rephaser)
        seq.add_block(read, adc)
        seq.add_block(pp.make_trapezoid("y", area=-along.area, duration=1 * ms, system=system), spoiler)
        seq.add_block(pp.make_label("LIN", "SET", i), pp.make_delay(5 * ms))
    seq.set_definition("FOV", [FOV, FOV, THICKNESS])
    seq.write(str(path))


foreign(folder / "foreign.seq")
sequence = mr.pulseq.read(folder / "foreign.seq")
(segment,) = sequence.segments
print(f"{segment.repetitions} pulses of {float(segment.pulse.flip) / deg:.1f} degrees, {sequence.n_echoes} samples")

# %% [markdown]
# ## The shape of the pulse
#
# 24 cosines make the pulse; the loss asks for |M+| = sin(15 degrees) within 80 % of the slice and nothing beyond 120 %
# of it, with a little weight on the energy, so that the shape stays smooth.

# %%
shape = sequence.shapes[0]
n = shape.samples.shape[0]
t = (np.arange(n) + 0.5) / n - 0.5
cosines = jnp.asarray(np.cos(2 * np.pi * np.outer(np.arange(24), t)) * (1 + np.cos(2 * np.pi * t)) / 2)
z = np.linspace(-2.5 * THICKNESS, 2.5 * THICKNESS, 301)
inside, outside = np.abs(z) < 0.4 * THICKNESS, np.abs(z) > 0.6 * THICKNESS
flip = float(segment.pulse.flip)


def waveform(weights):
    samples = weights @ cosines
    return eqx.tree_at(lambda s: s.samples, shape, samples / (jnp.sum(samples) * shape.dwell))


def profile(pulse):
    return jnp.abs(jax.vmap(lambda z: mr.rf.excite(pulse, flip, z)[0])(jnp.asarray(z)))


def shape_loss(sequence, weights):
    found = profile(sequence.shapes[0]) / np.sin(flip)
    wrong = jnp.where(inside, found - 1, jnp.where(outside, found, 0.0))
    energy = mr.rf.energy(sequence.shapes[0], 1.0) / mr.rf.energy(shape, 1.0)
    return jnp.mean(wrong**2) + 1e-4 * energy


def with_shape(weights):
    return eqx.tree_at(lambda s: s.shapes[0], sequence, waveform(weights))


start = np.linalg.lstsq(np.asarray(cosines).T, np.asarray(shape.samples).real, rcond=None)[0]
better = mr.design.optimise(with_shape, shape_loss, start, solver=optax.lbfgs(), steps=150)
print(f"loss {better.history.loss[0]:.2e} to {better.loss:.2e} in {len(better.history.loss)} steps: {better.reason}")

# %% [markdown]
# ## The flips
#
# The signal of white matter at every line, by EPG or PDG, should be the same, and as large as it can be then.

# %%
tissue = mr.Tissue(t1=[0.84], t2=[0.07])
spin = mr.Phantom(tissue, np.zeros((1, 3)), (4 * mm,) * 3)
# The middle of k-space along a line, where encoding leaves one voxel at the centre as it is.
lines = lambda kspace: jnp.abs(kspace[0].reshape(LINES, LINES)[:, LINES // 2])  # noqa: E731


def with_flips(flips):
    return eqx.tree_at(lambda s: s.segments[0].pulse.flip, better.sequence, flips)


def flip_loss(sequence, flips, model):
    signal = lines(mr.simulate(sequence, spin, model))
    return jnp.var(signal) / jnp.mean(signal) ** 2 - 2 * jnp.mean(signal)


level = mr.design.optimise(
    with_flips, flip_loss, jnp.full(LINES, flip), bounds=(1 * deg, 90 * deg), solver=optax.adam(0.02),
    plan=(mr.PDG(1e-3), spin), replan=40, steps=400, patience=60,
)  # fmt: skip
print(f"{len(level.history.loss)} steps: {level.reason}; flips {np.asarray(level.parameters[[0, -1]]) / deg} degrees")

# %% [markdown]
# ## Written back
#
# The template lends blocks, labels and definitions; PyPulseq reads the result and finds its timing in order.

# %%
mr.pulseq.write(folder / "optimised.seq", level.sequence, template=folder / "foreign.seq")
read_back = mr.pulseq.read(folder / "optimised.seq")
checked = pp.Sequence()
checked.read(str(folder / "optimised.seq"))
print("timing in order:", checked.check_timing()[0], "- labels:", checked.evaluate_labels())
print("flips as asked for:", np.abs(read_back.segments[0].pulse.flip - np.asarray(level.parameters)).max() < 1e-6)

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
for name, pulse, colour in (("foreign", shape, "0.5"), ("optimised", read_back.shapes[0], "tab:red")):
    samples = np.asarray(pulse.samples).real * 15 / 360 / 1e3
    left.plot(1e3 * (np.arange(len(samples)) + 0.5) * float(pulse.dwell), samples, color=colour, label=name)
    middle.plot(z / mm, profile(pulse), color=colour, label=name)
before = lines(mr.simulate(sequence, spin, mr.PDG(1e-4)))
after = lines(mr.simulate(read_back, spin, mr.PDG(1e-4)))
right.plot(before, color="0.5", label="foreign")
right.plot(after, color="tab:red", label="optimised")
left.set(xlabel="time (ms)", ylabel="B1 at 15 degrees (kHz)", title="RF pulse")
middle.set(xlabel="z (mm)", ylabel="|M+|", title="slice profile, 15 degrees", xlim=(-8, 8))
right.set(xlabel="line", ylabel="signal / M0", title="white matter, line by line", ylim=(0, None))
for axes in (left, middle, right):
    axes.legend(frameon=False)
plt.show()
print(f"signal of the lines: {before.std() / before.mean():.0%} spread before, {after.std() / after.mean():.1%} after")
