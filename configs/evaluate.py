"""How good a twin is: one report on patients it has never seen.

  ecgtwin evaluate TWIN --data=DIR --workdir=runs/evaluated

Writes report.html with its pictures, metrics.json and tables as CSV. Started
again with the same settings, it goes on where it was stopped.
"""

import ml_collections

from configs import common


def get_config():
  placeholder = ml_collections.config_dict.placeholder
  config = ml_collections.ConfigDict()
  config.job = "evaluate"  # what the command does
  config.workdir = "runs/evaluated"  # where results go
  config.twin = "simulated-small"  # or a twin directory
  config.data = "runs/small/simulated"  # a data set with ECGs
  # Splits to take patients from. Others than test only where the twin's
  # training never saw the data set.
  config.splits = ("test",)
  # Patients with several recordings judge twins: "validation" takes one half of
  # all patients, "test" the other, which is looked at once; None: both.
  config.half = placeholder(str)
  config.patients = 200  # to make twins of, at most
  config.conditions = 4  # targets per patient, at most
  config.num_samples = 1  # ECGs per target; the paper has 3
  # Beside the twin, what it is given in place of its due.
  config.ablations = (
    "shuffled_text",
    "shuffled_reference",
    "zero_base",
    "matched_stranger",
  )
  # Parts of the report; "counterfactual" is another.
  config.levels = (
    "fidelity",
    "condition",
    "physiology",
    "person",
    "counterfactuals",
    "truth",
    "privacy",
  )
  # Of the level "counterfactual", which generates anew: about
  # patients * (2 * cycles + samples + 8) ECGs.
  config.counterfactual = dict(patients=20, cycles=5, samples=16)
  # Parts of names of metrics that say nothing on these data, such as
  # "amplitude" where recordings were scaled.
  config.not_applicable = ()
  # As the release evaluates: against decoded real ECGs, one of the samples,
  # halves in file order, a failed heart-rate detection as 0 bpm.
  config.published_protocol = False
  # Evaluators, networks: a run, checkpoint or bundle of each; None: shipped,
  # trained on simulated patients of their own.
  config.clip = placeholder(str)
  config.identity = placeholder(str)  # the same, for whose an ECG is
  config.classifier = placeholder(str)  # the same, for what it shows
  config.training_recordings = 4000  # that the privacy level compares with
  config.seed = 0  # of noise and of bootstrap intervals
  config.sampling = common.generation().sampling
  config.lock()
  return config
