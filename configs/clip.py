"""The ECG-text CLIP whose projections are the space of the evaluation.

  ecgtwin train clip           one GPU
  ecgtwin train clip:small     5 CPU minutes
  ecgtwin train clip:smoke     seconds on a CPU

Expect validation/top1_report, the right report among those of the batch, far
above validation/top1_report_chance.
"""

from configs import common


def get_config(variant="base"):
  config = common.training("clip", "clip", variant)
  if variant == "small":
    common.use_cohort_of_evaluators(config)
  config.model = dict(
    stages=(64, 128, 128, 256, 256, 512, 1024),  # channels, each half as long
    blocks=(2, 2, 2, 3, 3, 4, 4),  # residual blocks of each
    kernel=16,  # samples that a convolution reads
    dropout=0.5,  # share of channels that training hides
    text_hidden=2048,  # width between a report's vector and its projection
    projection=64,  # width of what ECGs and reports are compared by
  )
  # The published loss treats an equal report of another ECG as wrong.
  config.same_report_negatives = False
  config.eval_records = 2048  # at most so many held-out recordings
  published = {
    "batch_size": 256,
    "optimizer.learning_rate": 1e-3,
    "optimizer.final_learning_rate": 1e-3,
    "optimizer.weight_decay": 1e-3,
  }
  small = {
    "model.stages": (16, 16, 32, 32),
    "model.blocks": (1, 1, 1, 1),
    "model.text_hidden": 128,
    "optimizer.learning_rate": 1e-3,
  }
  return common.finish(
    config,
    common.choose(
      variant,
      {
        "base": {
          **published,
          "steps": 20_000,
          "optimizer.final_learning_rate": 1e-5,
          "optimizer.warmup_steps": 500,
          "optimizer.ema": 0.999,
        },
        # 20 epochs of MIMIC-IV-ECG's 800,035 recordings.
        "paper": {
          **published,
          "steps": 20 * 800_035 // 256,
          "same_report_negatives": True,
        },
        # The shipped one, of `simulated-evaluators`.
        "small": {
          "model.stages": (16, 16, 32, 64, 128),
          "model.blocks": (1, 1, 1, 1, 1),
          "model.kernel": 9,
          "model.dropout": 0.0,  # its random numbers cost half of a step
          "model.text_hidden": 256,
          "batch_size": 128,
          "steps": 1500,
          "log_every": 50,
          "eval_every": 250,
          "checkpoint_every": 250,
          "optimizer.learning_rate": 2e-3,
          "optimizer.weight_decay": 1e-3,
          "optimizer.warmup_steps": 50,
          "optimizer.ema": 0.99,
        },
        "demo": {
          **small,
          "batch_size": 64,
          "steps": 200,
          "log_every": 20,
          "eval_every": 100,
          "checkpoint_every": 100,
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
          "eval_records": 16,
        },
      },
    ),
  )
