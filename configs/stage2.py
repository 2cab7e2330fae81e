"""Stage 2, the latent diffusion transformer with the AdaX condition injector.

  ecgtwin train stage2         one GPU
  ecgtwin train stage2:paper   as published
  ecgtwin train stage2:smoke   seconds on a CPU

The run ends with a twin directory, <workdir>/twin, to generate from. Expect
validation/mse, squared error per element of the predicted noise, far below 1,
which is what predicting zero gives.
"""

import ml_collections

from configs import common


def get_config(variant="base"):
  config = common.training("denoiser", "stage2", variant)
  root = common.root(variant)
  config.vae = f"{root}/vae"  # a run, a checkpoint or a twin directory
  config.latents = f"{root}/latents"  # config.data, encoded by config.vae
  config.base_extractor = f"{root}/stage1"  # a run, or as config.vae
  # A run, or as config.vae; it goes with the twin where config.model.beat_track
  # needs it.
  config.rhythm = f"{root}/rhythm"
  # Latents are multiplied by this; None: as config.base_extractor takes them.
  config.latent_scale = ml_collections.config_dict.placeholder(float)
  # Range of x0 when sampling; None: measured.
  config.latent_clip = ml_collections.config_dict.placeholder(float)
  config.model = dict(
    injector="adax",  # or "adaln", "cross_attention"
    backbone="dit",  # or "unet"
    width=256,  # of a token; of a unet's full length
    depth=7,  # blocks of dit
    levels=3,  # lengths of unet, each half of the one before
    level_blocks=2,  # blocks of unet per level and way
    heads=8,  # of attention
    mlp_ratio=4,  # hidden width of a block's MLP over its width
    base_width=256,  # width of stage 1
    latent_channels=8,  # of the autoencoder
    null_condition=True,  # learned null statement and null patient
    # What the denoiser is told of the beats: "none", "timing" or "kinds".
    beat_track="kinds",
    # Attention of a unet's full length to the same moment of other beats.
    beat_attention=False,
    # The usual beat that stage 1 foretells, laid at the track's R peaks: the
    # width of stage 1's tokens; 0: none.
    beat_sketch=256,
    beat_gates=2,  # of what foretells it, those of stage 1
  )
  config.schedule = dict(
    steps=1000,  # from clean latents to noise
    start=0.00085,  # variance that the first step adds
    end=0.012,  # variance that the last step adds
  )
  config.prediction = "v"  # or "noise", as published
  config.loss_weighting = "min_snr"  # or "uniform" over steps, as published
  config.timesteps = (0, 999)  # first and last step that is trained
  # Share of examples that lose a condition, so that guidance can tell with
  # from without.
  config.dropout = dict(statements=0.1, patient=0.1, base=0.1, track=0.1)
  # Share of reports that lose the statements of their rhythm alone, so that a
  # report without one is nothing new.
  config.dropout.rhythm = 0.15
  # How the twin samples where nothing else is asked for: chosen on validation
  # patients after a training, 1 before.
  config.sampling = dict(
    statement_guidance=1.0,
    person_guidance=1.0,
    temperature=1.0,
    shape_temperature=1.0,
  )
  config.base_entry_mask = 0.0  # share of the base vector's entries set to 0
  # Recordings without a pair are pairs with themselves.
  config.own_recordings = False
  config.uniform_over = "patients"  # or "pairs": long histories weigh more
  config.eval_pairs = 2048  # at most so many held-out pairs

  # The shipped twins. So small and short a training learns faster with
  # convolutions than with the transformer.
  convolutions = {
    "model.backbone": "unet",
    "model.width": 96,
    "model.level_blocks": 1,
    "model.heads": 4,
    "model.base_width": 256,
    "model.beat_attention": True,
    "model.beat_sketch": 64,
  }
  return common.finish(
    config,
    common.choose(
      variant,
      {
        "base": {
          "batch_size": 512,
          "steps": 100_000,
          "optimizer.warmup_steps": 1000,
          "optimizer.learning_rate": 2e-4,
          "optimizer.ema": 0.9999,
        },
        "paper": {
          "batch_size": 512,
          "steps": 30 * 6_408_782 // 512,  # 30 epochs of MIMIC-IV-ECG
          "latent_scale": 0.18215,
          "latent_clip": 1.0,
          "model.null_condition": False,
          "model.latent_channels": 4,
          "model.beat_track": "none",
          "model.beat_sketch": 0,
          "model.beat_gates": 0,
          "prediction": "noise",
          "loss_weighting": "uniform",
          "timesteps": (1, 998),
          "dropout.statements": 0.0,
          "dropout.patient": 0.0,
          "dropout.base": 0.0,
          "dropout.track": 0.0,
          "dropout.rhythm": 0.0,
          "base_entry_mask": 0.15,  # one mask for the whole batch
          "uniform_over": "pairs",
        },
        "small": {
          **convolutions,
          "batch_size": 32,
          "steps": 7500,
          "eval_every": 1000,
          "checkpoint_every": 500,
          "sampling.statement_guidance": 1.4,
          "sampling.person_guidance": 1.5,
          "sampling.temperature": 1.15,
          "sampling.shape_temperature": 0.0,
          "optimizer.muon": True,  # far ahead of AdamW after 1,000 steps
          "optimizer.learning_rate": 2e-3,
          "optimizer.final_learning_rate": 2e-5,
          "optimizer.warmup_steps": 200,
          "optimizer.clip_norm": 100.0,
          "optimizer.ema": 0.999,
        },
        "demo": {
          **convolutions,
          "batch_size": 32,
          "steps": 600,
          "log_every": 25,
          "eval_every": 300,
          "checkpoint_every": 300,
          "sampling.statement_guidance": 1.5,
          "sampling.person_guidance": 1.75,
          "sampling.temperature": 0.5,
          "eval_pairs": 256,
          "optimizer.learning_rate": 1e-3,
          "optimizer.final_learning_rate": 2e-5,
          "optimizer.warmup_steps": 50,
          "optimizer.clip_norm": 100.0,
          "optimizer.ema": 0.99,
        },
        "smoke": {
          "model.width": 64,
          "model.depth": 2,
          "model.heads": 4,
          "model.base_width": 64,
          "model.beat_sketch": 64,
          "batch_size": 16,
          "steps": 4,
          "log_every": 2,
          "eval_every": 4,
          "checkpoint_every": 2,
          "eval_pairs": 32,
        },
      },
    ),
  )
