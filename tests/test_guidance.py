"""Guidance: plain at 1.0, bit for bit; the formula; one call; per example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgtwin_jax.diffusion.guidance import guided
from ecgtwin_jax.diffusion.samplers import draw_noise, sample
from ecgtwin_jax.diffusion.schedule import Schedule

SHORT = Schedule(steps=7, start=0.05, end=0.4)
RNGS = jax.random.split(jax.random.key(2), 3)
FULL = {
  "what": jnp.array([1.0, 2.0, 3.0]),
  "who": jnp.array([0.5, 0.25, 0.125]),
}
NO_STATEMENTS = FULL | {"what": jnp.zeros(3)}
NO_PERSON = FULL | {"who": jnp.zeros(3)}


def recording_network():
  calls = []

  def network(x, t, condition):
    calls.append(x.shape[0])
    scale = condition["what"] - 4 * condition["who"] + t
    return x * jnp.sin(scale)[:, None, None]

  return network, calls


def inputs():
  return draw_noise(RNGS, (5, 2), 7), jnp.array([4, 4, 4])


def test_strength_one_is_plain_sampling_bit_for_bit():
  network, calls = recording_network()
  x, _ = inputs()
  plain = sample(lambda x, t: network(x, t, FULL), x, RNGS, SHORT)
  denoise = guided(
    network, FULL, without_statements=NO_STATEMENTS, without_person=NO_PERSON
  )
  np.testing.assert_array_equal(sample(denoise, x, RNGS, SHORT), plain)
  assert set(calls) == {3}


@pytest.mark.parametrize(
  "statements, person, rows", [(2.5, 1.0, 6), (1.0, 0.5, 6), (2.5, 0.0, 9)]
)
def test_formula_with_one_call_of_stacked_rows(statements, person, rows):
  network, calls = recording_network()
  x, t = inputs()
  denoise = guided(
    network,
    FULL,
    without_statements=NO_STATEMENTS,
    without_person=NO_PERSON,
    statement_guidance=statements,
    person_guidance=person,
  )
  got = denoise(x, t)
  assert calls == [rows]
  full = network(x, t, FULL)
  expected = full + (statements - 1) * (full - network(x, t, NO_STATEMENTS))
  expected += (person - 1) * (full - network(x, t, NO_PERSON))
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
  assert not np.allclose(got, full)


def test_strength_may_differ_by_example_and_be_traced():
  network, _ = recording_network()
  x, t = inputs()

  def run(weight):
    return guided(
      network, FULL, without_person=NO_PERSON, person_guidance=weight
    )(x, t)

  mixed = jax.jit(run)(jnp.array([1.0, 2.0, 3.0]))
  for i in range(3):
    np.testing.assert_allclose(mixed[i], run(1.0 + i)[i], rtol=1e-5, atol=1e-6)


def test_auxiliary_output_is_that_of_the_full_condition():
  def network(x, t, condition):
    return x, {"map": condition["what"]}

  x, t = inputs()
  denoise = guided(
    network, FULL, without_statements=NO_STATEMENTS, statement_guidance=2.0
  )
  np.testing.assert_array_equal(denoise(x, t)[1]["map"], FULL["what"])


@pytest.mark.parametrize("name", ["statement_guidance", "person_guidance"])
def test_strength_without_a_null_form_is_refused(name):
  with pytest.raises(ValueError, match=f"{name}=2.0"):
    guided(recording_network()[0], FULL, **{name: 2.0})
