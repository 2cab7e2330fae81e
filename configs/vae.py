"""Stage 0, the autoencoder: 10 s, 12-lead ECGs to latents (128, 4) and back.

  ecgtwin train vae            one GPU
  ecgtwin train vae:smoke      seconds on a CPU

Expect metrics.jsonl's validation/correlation, per lead between the input and
the reconstruction of unseen patients, to pass 0.9 early on.
"""

import ml_collections

from configs import common


def get_config(variant="base"):
  config = common.training("vae", "vae", variant)
  # As published, but for the channels and leads.
  sizes = dict(
    widths=(128, 256, 512),  # of each level, half as long as the one before
    groups=32,  # that norms put channels into
    latent_channels=8,  # of each of the 128 positions
    patch=1,  # samples side by side that are the channels of one position
    independent_leads=True,  # the network's: I, II, V1..V6, of twelve
  )
  config.model = dict(
    # Residual blocks of each level, and in the middle.
    encoder=dict(sizes, blocks=2, middle=3),
    # Residual blocks of each level, and in the middle.
    decoder=dict(sizes, blocks=3, middle=4),
  )
  config.kl_weight = 0.1  # 1 leaves channels without use
  config.slope_weight = 4.0  # of the squared error of first differences
  # Above it, in the second half, a channel is dead and the training stops.
  config.max_posterior_std = ml_collections.config_dict.placeholder(float)
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
  # One level of patches, and Muon: 250 steps reach what AdamW needs 500 for.
  flat = {
    **small,
    "model.encoder.patch": 4,
    "model.decoder.patch": 4,
    "model.encoder.widths": (96,),
    "model.decoder.widths": (96,),
    "model.encoder.blocks": 2,
    "model.decoder.blocks": 2,
    "optimizer.muon": True,
  }
  return common.finish(
    config,
    common.choose(
      variant,
      {
        "base": {
          "steps": 50_000,
          "max_posterior_std": 0.8,
          "optimizer.warmup_steps": 500,
          "optimizer.ema": 0.999,
        },
        # The paper gives no settings for this stage; the loss is its own.
        "paper": {
          **{
            f"model.{part}.{key}": value
            for part in ("encoder", "decoder")
            for key, value in dict(
              latent_channels=4, independent_leads=False
            ).items()
          },
          "kl_weight": 1.0,
          "slope_weight": 0.0,
          "steps": 50_000,
        },
        # The shipped twin, `simulated-small`.
        "small": {
          **flat,
          "batch_size": 16,
          "steps": 8500,
          "eval_every": 1000,
          "checkpoint_every": 250,
          "max_posterior_std": 0.8,
          "optimizer.warmup_steps": 100,
          "optimizer.final_learning_rate": 2e-5,
          "optimizer.ema": 0.998,
        },
        "demo": {
          **flat,
          "batch_size": 16,
          "steps": 600,
          "log_every": 25,
          "eval_every": 300,
          "checkpoint_every": 300,
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
