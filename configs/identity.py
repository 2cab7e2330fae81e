"""The identity encoder that the evaluation finds people with.

  ecgtwin train identity         one GPU
  ecgtwin train identity:small   5 CPU minutes
  ecgtwin train identity:smoke   seconds, CPU

It trains on simulated patients whom no generator meets. On real data give it
the validation split of the data set, which the generator does not train on:

  --data=DIR --patients=validation

Expect validation/top1, retrieval of a held-out patient by another recording,
far above validation/top1_chance.
"""

from configs import common


def get_config(variant="base"):
  config = common.training("identity", "identity", variant)
  common.use_cohort_of_evaluators(config)
  config.patients = "train"  # or "validation": split to train on
  config.model = dict(
    stages=(64, 128, 128, 256, 256, 512),  # channels, each half as long
    blocks=(2, 2, 2, 2, 2, 2),  # residual blocks of each
    kernel=16,  # samples that a convolution reads
    group_width=16,  # channels that a convolution mixes
    dropout=0.1,  # share of channels that training hides
    width=128,  # of the vector that stands for a person
  )
  config.temperature = 0.1  # of the contrast between people
  config.gain = 0.1  # recordings are scaled by 1 -+ this, drawn anew each time
  config.eval_patients = 512  # gallery of the held-out retrieval
  small = {
    "model.stages": (16, 16, 32, 64, 128),
    "model.blocks": (1, 1, 1, 1, 1),
    "model.kernel": 9,
    "model.dropout": 0.0,  # its random numbers cost half of a step on a CPU
    "model.width": 64,
    "optimizer.learning_rate": 2e-3,
  }
  return common.finish(
    config,
    common.choose(
      variant,
      {
        "base": {
          "batch_size": 256,
          "steps": 20_000,
          "optimizer.learning_rate": 1e-3,
          "optimizer.weight_decay": 1e-3,
          "optimizer.warmup_steps": 500,
          "optimizer.ema": 0.999,
        },
        # The shipped one, of `simulated-evaluators`.
        "small": {
          **small,
          "batch_size": 64,
          "steps": 1500,
          "log_every": 50,
          "eval_every": 250,
          "checkpoint_every": 250,
          "optimizer.warmup_steps": 50,
          "optimizer.ema": 0.99,
        },
        "smoke": {
          **small,
          "model.stages": (16, 32),
          "model.blocks": (1, 1),
          "batch_size": 8,
          "steps": 4,
          "log_every": 2,
          "eval_every": 4,
          "checkpoint_every": 2,
        },
      },
    ),
  )
