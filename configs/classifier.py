"""Classifiers of ECGs, to evaluate generated ones and for personal diagnosis.

  ecgtwin train classifier         one GPU
  ecgtwin train classifier:paper   one GPU
  ecgtwin train classifier:small   a CPU
  ecgtwin train classifier:smoke   seconds

`base` and `small` tell a report's findings; --mode=binary makes any of
them the classifier of configs/diagnose.py, as `paper` is. Expect
validation/auroc far above 0.5; `small`, on simulated patients: 0.95 and more.
"""

from configs import common


def get_config(variant="base"):
  config = common.training("classifier", "classifier", variant)
  common.use_cohort_of_evaluators(config)
  config.mode = "multilabel"  # or binary: normal (0), abnormal (1)
  config.class_weights = (1.0, 1.0)  # of label 0 and of label 1
  config.model = dict(
    stages=(64, 128, 256, 512),  # channels
    blocks=(2, 2, 2, 3),  # residual blocks of each
    kernel=16,  # samples that a convolution reads
    stride=2,  # times that each stage is shorter than the one before
    group_width=16,  # channels that a convolution mixes
    dropout=0.5,  # share of channels that training hides
  )
  config.eval_records = 4096  # at most so many held-out recordings
  published = {
    "batch_size": 256,
    "optimizer.learning_rate": 1e-3,
    "optimizer.final_learning_rate": 0.0,
    "optimizer.weight_decay": 3e-4,
  }
  return common.finish(
    config,
    common.choose(
      variant,
      {
        "base": {
          **published,
          "steps": 20_000,
          "optimizer.warmup_steps": 500,
          "optimizer.ema": 0.999,
        },
        # 10 epochs of MIMIC-IV-ECG's 800,035 recordings.
        "paper": {
          **published,
          "mode": "binary",
          "class_weights": (2.0, 1.0),
          "steps": 10 * 800_035 // 256,
        },
        "small": {
          **published,
          "model.stages": (32, 32, 64, 128),
          "model.blocks": (1, 1, 1, 1),
          "model.dropout": 0.1,
          "batch_size": 64,
          "steps": 1500,
          "optimizer.warmup_steps": 100,
          "optimizer.learning_rate": 2e-3,
          "optimizer.ema": 0.99,
          "eval_every": 300,
          "checkpoint_every": 300,
        },
        "smoke": {
          **published,
          "model.stages": (16, 16),
          "model.blocks": (1, 1),
          "batch_size": 8,
          "steps": 4,
          "log_every": 2,
          "eval_every": 4,
          "checkpoint_every": 2,
          "eval_records": 16,
        },
      },
    ),
  )
