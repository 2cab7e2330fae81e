"""Stage 1, the Individual Base Extractor: who a recording belongs to.

  ecgtwin train stage1         one GPU
  ecgtwin train stage1:paper   as published
  ecgtwin train stage1:smoke   seconds on a CPU

Expect validation/top1, retrieval of a patient's other recording among held-out
patients, far above validation/top1_chance, and validation/beat_r2, the share of
that recording's median beat which base vector and condition give, far above
validation/beat_r2_of_nobody, what the condition gives alone: after 10,000 steps
of `small`, 14 minutes of two cores, 0.98 of 512 patients, 0.79 and 0.34.
"""

import ml_collections

from configs import common


def get_config(variant="base"):
  config = common.training("base_extractor", "stage1", variant)
  root = common.root(variant)
  config.vae = f"{root}/vae"  # a run, a checkpoint or a twin directory
  config.latents = f"{root}/latents"  # config.data, encoded by config.vae
  # Latents are multiplied by this; None: measured, to unit variance.
  config.latent_scale = ml_collections.config_dict.placeholder(float)
  config.model = dict(
    width=256,  # of a token
    depth=3,  # blocks
    heads=8,  # of attention
    mlp_ratio=4,  # hidden width of a block's MLP over its width
  )
  config.model.null_condition = True  # accepts missing age or sex
  config.model.latent_channels = 8  # of the autoencoder
  config.model.latent_patch = 4  # positions of the latent in one token
  # Readings of the tokens, side by side the base vector; 0: the tokens' mean,
  # as published.
  config.model.identity_tokens = 8
  config.model.token_width = 32  # of a reading: 8 * 32 = 256
  config.model.resampler_depth = 1  # blocks that take the readings
  config.model.median_beat = True  # sees it, and foretells the other's
  config.model.beat_width = 256  # of what reads it at once, and foretells
  config.model.beat_gates = 2  # blocks of these with the condition as a factor
  config.beat_weight = 2.0  # of the median beats' error beside the contrast
  config.text_dropout = 0.15  # unconditional form, as published
  config.text_dropout_per = "example"  # or "batch", as published
  # The published loss treats other pairs of a patient as strangers.
  config.same_patient_negatives = False
  # Recordings without a pair are pairs with themselves.
  config.own_recordings = False
  config.uniform_over = "patients"  # or "pairs": long histories weigh more
  config.eval_patients = 512  # gallery of the held-out retrieval

  small = {
    "model.width": 64,
    "model.heads": 4,
    "model.depth": 0,  # a block halves the steps a second, see studies/
    "model.latent_patch": 8,
  }
  return common.finish(
    config,
    common.choose(
      variant,
      {
        "base": {
          "batch_size": 2048,
          "steps": 20_000,
          "optimizer.learning_rate": 1e-3,
          "optimizer.weight_decay": 1e-3,
          "optimizer.warmup_steps": 500,
          "optimizer.clip_norm": 1.0,
          "optimizer.ema": 0.999,
        },
        "paper": {
          "batch_size": 65_536,
          "accumulate": 128,  # negatives among 512, as published
          "steps": 50 * 6_408_782 // 65_536,  # 50 epochs of MIMIC-IV-ECG
          "latent_scale": 0.18215,
          "model.null_condition": False,
          "model.latent_channels": 4,
          "model.latent_patch": 1,
          "model.identity_tokens": 0,
          "model.median_beat": False,
          "model.beat_gates": 0,
          "text_dropout_per": "batch",
          "same_patient_negatives": True,
          "uniform_over": "pairs",
          "optimizer.learning_rate": 1e-3,
          "optimizer.final_learning_rate": 1e-3,
          "optimizer.weight_decay": 1e-3,
          "log_every": 1,
          "eval_every": 50,
          "checkpoint_every": 50,
        },
        # The shipped twin, `simulated-small`.
        "small": {
          **small,
          "beat_weight": 4.0,
          "batch_size": 256,
          "steps": 800,
          "log_every": 25,
          "eval_every": 200,
          "checkpoint_every": 100,
          "optimizer.learning_rate": 2e-3,
          "optimizer.final_learning_rate": 5e-5,
          "optimizer.weight_decay": 0.1,
          "optimizer.warmup_steps": 40,
          "optimizer.clip_norm": 1.0,
          "optimizer.ema": 0.98,
        },
        "demo": {
          **small,
          "batch_size": 64,
          "steps": 300,
          "log_every": 15,
          "eval_every": 150,
          "checkpoint_every": 150,
          "optimizer.learning_rate": 3e-3,
          "optimizer.weight_decay": 1e-3,
          "optimizer.warmup_steps": 20,
          "optimizer.clip_norm": 1.0,
          "optimizer.ema": 0.98,
        },
        "smoke": {
          **small,
          "model.depth": 1,
          "model.token_width": 8,
          "batch_size": 16,
          "steps": 4,
          "log_every": 2,
          "eval_every": 4,
          "checkpoint_every": 2,
        },
      },
    ),
  )
