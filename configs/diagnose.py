"""Personalised auto-diagnosis: do twins help to diagnose their patient?

  ecgtwin diagnose --twin=DIR --data=DIR --classifier=DIR

Needs a classifier of normal and abnormal, such as

  ecgtwin train classifier:small --mode=binary --workdir=runs/small/normality

1,280 twins per patient, as published, take minutes each on a CPU;
ecgtwin diagnose:small makes 60 of each. Writes metrics.json, diagnosis.csv,
recordings.csv, diagnosis.png and example.png. Started again with the same
settings, it goes on where it was stopped.
"""

import ml_collections

from configs import common


def get_config(variant="base"):
  config = ml_collections.ConfigDict()
  config.job = "diagnose"  # what the command does
  config.workdir = f"{common.root(variant)}/diagnosed"  # where results go
  config.twin = "simulated-small"  # or a twin directory
  config.data = "runs/small/simulated"  # a data set with ECGs
  config.classifier = "runs/small/normality"  # a run or checkpoint
  config.patients = 100  # of the test split
  config.validation_patients = 20  # choose the step; strangers and crowd
  config.twins_factor = 1.0  # 1: the published 1,280 twins per patient
  config.twins_at_once = 1280  # people share a call up to so many
  config.seed = 0  # of noise, order and fine-tuning
  config.fine_tuning = dict(
    batch_size=256,  # ECGs of a step
    passes=1,  # over a patient's twins
    class_weights=(1.0, 1.0),  # half of the twins are normal
    optimizer=_optimizer(learning_rate=1e-4, final_learning_rate=1e-4),
  )
  # Trainings from scratch; no shares: none.
  config.synthetic = dict(
    shares=(0.0, *(round(0.1 * i, 1) for i in range(1, 11))),
    recordings=4000,  # to train on, real or synthetic
    batch_size=256,  # ECGs of a step
    passes=10,  # over the recordings
    class_weights=(1.0, 1.0),  # of normal and of abnormal
    optimizer=_optimizer(learning_rate=1e-3, final_learning_rate=0.0),
  )
  config.sampling = common.generation().sampling
  return common.finish(
    config,
    common.choose(
      variant,
      {
        "base": {},
        "small": {
          "twins_factor": 0.05,
          "patients": 50,
          "validation_patients": 10,
          "fine_tuning.batch_size": 12,
          "synthetic.shares": (0.0, 0.1, 0.25, 0.5, 0.75, 1.0),
          "synthetic.recordings": 500,
          "synthetic.batch_size": 50,
        },
        "smoke": {
          "twins_factor": 0.01,
          "patients": 3,
          "validation_patients": 2,
          "fine_tuning.batch_size": 8,
          "synthetic.shares": (0.0, 1.0),
          "synthetic.recordings": 8,
          "synthetic.batch_size": 8,
          "synthetic.passes": 1,
          "sampling.steps": 2,
        },
      },
    ),
  )


def _optimizer(**rates):
  """AdamW as the classifier's, without warm-up."""
  return dict(
    muon=False,
    **rates,
    warmup_steps=0,  # in which the learning rate rises from 0
    b2=0.999,  # decay of the mean square of gradients
    weight_decay=3e-4,  # as AdamW has it, times the learning rate
    # Gradients longer than this are shortened to it; None: none are.
    clip_norm=ml_collections.config_dict.placeholder(float),
  )
