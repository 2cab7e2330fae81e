"""The rhythm model, which says when beats fall before their shape is drawn.

  ecgtwin train rhythm         CPU minutes
  ecgtwin train rhythm:small   CPU minutes
  ecgtwin train rhythm:smoke   seconds

It trains on the beats found in each recording, which the data set of latents
holds. Expect validation/loss, minus the log likelihood of a held-out rhythm in
nats, to fall far below that of the first step; the density of an interval is
part of it, so that it becomes negative.
"""

from configs import common


def get_config(variant="base"):
  config = common.training("rhythm", "rhythm", variant)
  root = common.root(variant)
  config.vae = f"{root}/vae"  # what made the latents
  config.latents = f"{root}/latents"  # config.data, encoded by config.vae
  config.model = dict(
    width=64,  # of its state from beat to beat
    components=8,  # of the mixture that an interval is drawn from
  )
  # Share of ages and sexes that are lost, and of reports that lose the
  # statements of a sinus rhythm, which goes without saying.
  config.dropout = dict(patient=0.1, sinus=0.15)
  config.eval_records = 4096  # at most so many held-out recordings
  config.optimizer.learning_rate = 5e-3
  config.optimizer.final_learning_rate = 1e-4
  config.optimizer.warmup_steps = 100
  config.optimizer.clip_norm = 10.0
  config.optimizer.ema = 0.99
  return common.finish(
    config,
    common.choose(
      variant,
      {
        "base": {
          "batch_size": 256,
          "steps": 20_000,
          "log_every": 100,
          "eval_every": 1000,
          "checkpoint_every": 1000,
        },
        # The shipped twin's.
        "small": {
          "batch_size": 128,
          "steps": 3000,
          "eval_every": 500,
          "checkpoint_every": 500,
        },
        "demo": {
          "model.width": 48,
          "batch_size": 64,
          "steps": 600,
          "log_every": 25,
          "eval_every": 300,
          "checkpoint_every": 300,
          "eval_records": 512,
          "optimizer.warmup_steps": 50,
        },
        "smoke": {
          "model.width": 16,
          "batch_size": 16,
          "steps": 4,
          "log_every": 2,
          "eval_every": 4,
          "checkpoint_every": 2,
          "optimizer.warmup_steps": 0,
        },
      },
    ),
  )
