"""The Cramér-Rao bound: against its definition, and against the scatter of maximum-likelihood estimates."""

import jax.numpy as jnp
import numpy as np

import jaxmr as mr
from checks import sine_train
from jaxmr.core.information import smallest_variances
from jaxmr.units import ms

SEQUENCE = mr.sequences.fisp(sine_train(80), 12 * ms, 3 * ms, 20 * ms)


def test_bound_is_the_inverse_of_the_information():
    tissue = mr.Tissue(t1=[0.9, 1.4], t2=[0.085, 0.11], m0=[1.0, 2.0])
    names = ("m0", "t1", "t2")
    _, jacobian = mr.simulate_with_jacobian(SEQUENCE, tissue, mr.EPG(), wrt=names)
    expected = [np.diag(np.linalg.inv(np.real(j.conj() @ j.T) / 0.01**2)) for j in np.asarray(jacobian)]
    bound = mr.design.crlb(SEQUENCE, tissue, wrt=names, model=mr.EPG(), noise_std=0.01)
    assert np.allclose(bound, expected, rtol=1e-8)


def test_an_unseen_parameter_has_no_bound():
    """One pulse of zero flip: nothing is known about anything."""
    silent = mr.sequences.fisp(np.zeros(4), 12 * ms, 3 * ms)
    assert np.isinf(mr.design.crlb(silent, mr.Tissue(t1=1.0, t2=0.1), wrt=("t1", "t2"), model=mr.EPG())).all()


def test_parameters_that_cannot_be_told_apart_have_no_bound():
    """Precession in a train of constant TR is one phase; what the others are worth does not suffer."""
    tissue = mr.Tissue(t1=0.9, t2=0.085, b0=3.0, m0=1.0)
    alone = mr.design.crlb(SEQUENCE, tissue, wrt=("t1", "t2"), model=mr.EPG())
    information = np.zeros((4, 4))
    information[:2, :2] = mr.design.fisher_information(SEQUENCE, tissue, ("t1", "t2"), mr.EPG())
    information[2:, 2:] = 5.0
    np.testing.assert_allclose(smallest_variances(jnp.asarray(information)), [*alone, np.inf, np.inf], rtol=1e-9)


def test_matching_scatters_as_the_bound_says():
    """Noisy signals matched to a fine dictionary: the standard deviation of T1 and T2 is the bound's within 10 %."""
    tissue = mr.Tissue(t1=1.0, t2=0.1)
    noise, n = 2e-3, 2000
    bound = jnp.sqrt(mr.design.crlb(SEQUENCE, tissue, wrt=("m0", "t1", "t2"), model=mr.EPG(), noise_std=noise))
    t1 = np.linspace(1.0 - 6 * bound[1], 1.0 + 6 * bound[1], 41)
    t2 = np.linspace(0.1 - 6 * bound[2], 0.1 + 6 * bound[2], 41)
    dictionary = mr.mrf.dictionary(SEQUENCE, t1=t1, t2=t2, model=mr.EPG())
    rng = np.random.default_rng(0)
    noisy = np.asarray(mr.simulate(SEQUENCE, tissue, mr.EPG())) + noise * (rng.normal(size=(2, n, 80)).T @ [1, 1j]).T
    maps = mr.mrf.match(dictionary, noisy, refine=True)
    # Matching leaves the phase of m0 free, which costs a constant-phase signal nothing.
    assert abs(np.std(maps.t1) / bound[1] - 1) < 0.1
    assert abs(np.std(maps.t2) / bound[2] - 1) < 0.1
