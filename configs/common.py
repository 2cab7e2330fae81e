"""What the configurations of all trainings share."""

import ml_collections

# The simulated cohort that trainings run on where no other data are named.
_COHORTS = {
  "base": dict(patients=4_000, recordings=5),
  "paper": dict(patients=4_000, recordings=5),
  "small": dict(patients=8_000, recordings=5),
  "demo": dict(patients=600, recordings=4),
  "smoke": dict(patients=40, recordings=3),
}


def root(variant: str) -> str:
  """Folder of a variant's runs; `base`, the default, lies directly in runs."""
  return "runs" if variant == "base" else f"runs/{variant}"


def choose(variant: str, variants: dict) -> dict:
  """Looks the variant up.

  Raises:
    ValueError: no such variant.
  """
  if variant not in variants:
    raise ValueError(f"{variant=} must be one of {', '.join(variants)}")
  return variants[variant]


def training(stage: str, name: str, variant: str) -> ml_collections.ConfigDict:
  """The keys of train.py, the same for each stage.

  Args:
    stage: module of ecgtwin_jax/stages.
    name: folder of the run.
    variant: base, paper, small, demo or smoke.
  """
  config = ml_collections.ConfigDict()
  config.job = "train"  # what the command does
  config.stage = stage  # module of ecgtwin_jax/stages that is trained
  config.variant = variant  # which sizes and numbers the keys began with
  config.workdir = f"{root(variant)}/{name}"  # where results go
  config.seed = 0  # of all random numbers

  # `paper` trains on the cohort of `base`: the same default data.
  home = "runs" if variant == "paper" else root(variant)
  config.data = f"{home}/simulated"  # a data set made by data_prep
  # What is simulated where config.data is still the default and missing.
  config.cohort = ml_collections.ConfigDict(
    dict(choose(variant, _COHORTS), path=config.data, seed=0)
  )

  config.batch_size = 64  # examples of a step, over all devices
  config.accumulate = 1  # micro-batches per optimizer step
  config.steps = 1000  # of the optimizer; the learning rate falls over them
  # A step to stop at before the last one; None: none.
  config.stop_at = ml_collections.config_dict.placeholder(int)
  # A run or checkpoint whose weights training starts from; None: random ones.
  config.init_from = ml_collections.config_dict.placeholder(str)
  config.fsdp = 1  # devices that share parameters and optimizer state
  config.precision = "float32"  # or bfloat16: of matrix products alone
  config.remat = False  # recompute activations to save memory

  config.log_every = 50  # steps from one line of metrics to the next
  config.eval_every = 1000  # steps from one validation to the next
  config.checkpoint_every = 1000  # steps from one checkpoint to the next
  config.keep_checkpoints = 2  # newest ones, beside the best one
  config.profile_steps = ()  # (first, last): writes a trace of these steps

  config.optimizer = ml_collections.ConfigDict(
    dict(
      muon=False,  # for kernels, in place of AdamW
      learning_rate=1e-4,  # the highest, after the warm-up
      final_learning_rate=1e-5,  # that of the last step, along a cosine
      warmup_steps=0,  # in which the learning rate rises from 0
      b2=0.999,  # decay of the mean square of gradients
      weight_decay=1e-2,  # as AdamW has it, times the learning rate
      # Gradients longer than this are shortened to it; None: none are.
      clip_norm=ml_collections.config_dict.placeholder(float),
      ema=0.0,  # decay of the averaged weights; 0: the weights themselves
    )
  )
  return config


def use_cohort_of_evaluators(config: ml_collections.ConfigDict) -> None:
  """Trains on a cohort that no generator meets: another seed, other patients.

  An evaluator that knew the generator's patients could not tell memory from
  skill.
  """
  config.data = f"{root(config.variant)}/evaluators"
  few = {"small": dict(patients=3_000, recordings=4)}
  config.cohort.update(few.get(config.variant, {}))
  config.cohort.update(path=config.data, seed=1000)


def finish(
  config: ml_collections.ConfigDict, changes: dict
) -> ml_collections.ConfigDict:
  """Applies a variant's changes, given by dotted key, and locks the keys."""
  config.lock()
  config.update_from_flattened_dict(changes)
  return config


def condition(
  statements: str | None = None, heart_rate: float | None = None
) -> ml_collections.ConfigDict:
  """A cardiac condition; None stands for "not given"."""
  placeholder = ml_collections.config_dict.placeholder
  values = ml_collections.ConfigDict()
  values.statements = placeholder(str)  # separated by '|'
  values.heart_rate = placeholder(float)  # bpm
  values.age = placeholder(float)  # years
  values.sex = placeholder(str)  # F or M
  values.update(dict(statements=statements, heart_rate=heart_rate))
  return values


def picture() -> ml_collections.ConfigDict:
  """How each generated ECG is drawn."""
  values = ml_collections.ConfigDict()
  values.layout = "3x4"  # with a rhythm strip below; or "6x2", "12x1"
  values.speed = 25.0  # of the paper in mm/s; or 50
  return values


def generation() -> ml_collections.ConfigDict:
  """The keys of generating: whose ECG, how many, how sampled."""
  config = ml_collections.ConfigDict()
  # The reference: a WFDB record, or a file of another format; None: the bundled
  # example.
  config.record = ml_collections.config_dict.placeholder(str)
  config.start = 0.0  # seconds to skip in the record
  config.now = condition()  # what the record shows
  config.num_samples = 8  # ECGs per condition
  config.seed = 0  # of all random numbers
  config.format = "wfdb"  # or "npz", "csv", "edf", "dicom"
  # When beats fall, in seconds, such as "0.4 1.2 pvc@2.0 4.2", or a premature
  # one alone, "pvc@4.2"; None: a rhythm is drawn for each sample.
  config.beats = ml_collections.config_dict.placeholder(str)
  config.sampling = dict(
    sampler="dpm++",  # or "sde-dpm++", "ddim", "ddpm"
    steps=5,  # calls of the network
    # Noise of ddim (None: 0) and sde-dpm++ (None: 1).
    eta=ml_collections.config_dict.placeholder(float),
    # Scale of guidance by the statements, 1: as trained; None: the twin's own.
    statement_guidance=ml_collections.config_dict.placeholder(float),
    # Scale of guidance by the person, 1: as trained; None: the twin's own.
    person_guidance=ml_collections.config_dict.placeholder(float),
    # Factor of the noise; None: the twin's own.
    temperature=ml_collections.config_dict.placeholder(float),
    # Factor of what all beats of it have in common; None: the twin's own.
    shape_temperature=ml_collections.config_dict.placeholder(float),
    x0_limit="clip",  # of latents out of range; or "dynamic", "none"
    consistent_leads=False,  # limb leads that add up exactly
  )
  return config
