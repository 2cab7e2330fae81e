"""Stage 0, the autoencoder: 10 s, 12-lead ECGs to latents (128, 4) and back.

  python -m ecgtwin_jax.main --config=configs/vae.py            one GPU
  python -m ecgtwin_jax.main --config=configs/vae.py:smoke      seconds on a CPU

Expect metrics.jsonl's validation/correlation, per lead between the input and
the reconstruction of unseen patients, to pass 0.9 early on.
"""

from configs import common


def get_config(variant="base"):
  config = common.training("vae", "vae", variant)
  # Sizes as published: width of each level (half as long as the one before),
  # residual blocks per level and in the middle.
  config.model = dict(
    encoder=dict(widths=(128, 256, 512), blocks=2, middle=3, groups=32),
    decoder=dict(widths=(128, 256, 512), blocks=3, middle=4, groups=32),
  )
  config.kl_weight = 1.0  # as published
  config.eval_records = 1024  # at most so many held-out recordings

  small = {
    **{
      f"model.{part}.{key}": value
      for part in ("encoder", "decoder")
      for key, value in dict(
        widths=(32, 64, 64), blocks=1, middle=1, groups=8
      ).items()
    },
    "optimizer.learning_rate": 2e-3,
    "optimizer.final_learning_rate": 1e-4,
    "optimizer.clip_norm": 500.0,
  }
  return common.finish(
    config,
    common.choose(
      variant,
      {
        "base": {
          "steps": 50_000,
          "optimizer.warmup_steps": 500,
          "optimizer.ema": 0.999,
        },
        # The paper gives no settings for this stage; the loss is its own.
        "paper": {"steps": 50_000},
        # The shipped twin, `simulated-small`.
        "small": {
          **small,
          "model.encoder.widths": (32, 64, 128),
          "model.decoder.widths": (32, 64, 128),
          "batch_size": 32,
          "steps": 3500,
          "eval_every": 500,
          "checkpoint_every": 250,
          "optimizer.warmup_steps": 100,
          "optimizer.ema": 0.998,
        },
        "demo": {
          **small,
          "batch_size": 16,
          "steps": 720,
          "log_every": 25,
          "eval_every": 360,
          "checkpoint_every": 360,
          "eval_records": 256,
          "optimizer.warmup_steps": 20,
          "optimizer.ema": 0.98,
        },
        "smoke": {
          **small,
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
