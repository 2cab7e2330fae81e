"""Planted cheaters: the verdict names each, and an honest twin by nothing."""

import functools

import numpy as np
import pytest

from ecgtwin_jax.evaluation import benchmark
from ecgtwin_jax.evaluation.cheaters import (
  CHEATERS,
  PERSON,
  REAL,
  REPLAYS,
  VARIES,
)
from ecgtwin_jax.evaluation.physiology import lead_places, variation
from ecgtwin_jax.evaluation.privacy import privacy
from ecgtwin_jax.evaluation.readings import Readings
from ecgtwin_jax.evaluation.verdict import give_verdicts

SMALL = benchmark.Task(seed=5, patients=8, targets=2, samples=2, training=40)
# What figures of beats and of replay alone can name.
QUICK = (
  "replayer",
  "stretched replayer",
  "hidden replayer",
  "splicer",
  "parrot",
  "mean beat",
  "inverted",
  "permuted leads",
  "collapsed",
  "leaked truth",
)
# The levels whose figures answer a question.
LEVELS = {
  PERSON: ("person", "truth"),
  REAL: ("fidelity", "physiology"),
  VARIES: ("physiology",),
  REPLAYS: ("privacy",),
}


@functools.cache
def exam(task):
  made = benchmark.set_exam(task)
  return made, benchmark.set_scene(task, made)


def answers(metrics):
  return {answer.question: answer for answer in give_verdicts(metrics)}


def judge_beats(twins):
  made, _ = exam(SMALL)
  examples = made.examples(twins)
  readings = Readings(examples)
  places = lead_places.compute(
    readings.of("twin"), readings.of("real"), examples.patients
  )
  rows = variation.metrics(variation.compute(examples, readings))
  return answers([*rows, *lead_places.metrics(places)])


def judge_replay(twins):
  made, _ = exam(SMALL)
  nearness = privacy.compute(
    made.examples(twins),
    made.recordings.train,
    made.recordings.unseen,
    train_patients=made.recordings.train_patients,
    validation_patients=made.recordings.unseen_patients,
  )
  return answers(privacy.metrics(nearness))


def is_named(found, cheater):
  answer = found[cheater.question]
  return answer.word in cheater.words and cheater.figure in answer.sentence


@pytest.mark.parametrize("name", QUICK)
def test_a_cheater_is_named_by_what_it_does(name):
  cheater = CHEATERS[name]
  judged = judge_replay if cheater.question == REPLAYS else judge_beats
  found = judged(cheater.make(exam(SMALL)[1]))
  assert is_named(found, cheater), found


def test_an_honest_twin_is_named_by_nothing():
  honest = exam(SMALL)[1].honest
  for judged in (judge_beats, judge_replay):
    found = judged(honest)
    accused = [name for name in CHEATERS if is_named(found, CHEATERS[name])]
    assert not accused, found


@pytest.mark.slow
@pytest.mark.parametrize("seed", [7, 1007])
def test_the_whole_report_names_every_cheater_and_no_honest_twin(seed):
  task = benchmark.Task(seed, patients=50, targets=2, training=100)
  made, scene = exam(task)

  def judge(twins, **chosen):
    twins = twins.astype(np.float32)
    measured = benchmark.measure(task, made, twins, **chosen)
    return answers([m for part in measured.values() for m in part.metrics])

  honest = judge(scene.honest)
  wrong = {n: honest for n, each in CHEATERS.items() if is_named(honest, each)}
  for name, cheater in CHEATERS.items():
    levels = LEVELS[cheater.question]
    answer = judge(cheater.make(scene), levels=levels)[cheater.question]
    print(f"{name}: {answer.question} {answer.word}. {answer.sentence}")
    if not is_named({cheater.question: answer}, cheater):
      wrong[f"missed {name}"] = answer
  assert not wrong
