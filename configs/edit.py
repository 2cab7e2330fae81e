"""ECGs of one person, and the same ECGs with one statement changed.

  ecgtwin edit --add="Right bundle branch block" --weight=1.5

Give one of add, swap and reweight; without, right bundle branch block is added.
Writes edited.png (each source above its edit), a record of each and edited.json
into the workdir; seconds on a CPU.
"""

import ml_collections

from configs import common


def get_config():
  config = ml_collections.ConfigDict()
  config.job = "edit"  # what the command does
  config.workdir = "runs/edited"  # where results go
  config.twin = "real-small"  # simulated-small, or a twin directory
  # Of statements the twin does not know: a name, or a model's folder.
  config.encoder = ml_collections.config_dict.placeholder(str)
  config.update(common.generation())
  config.num_samples = 4  # pairs of an ECG and its edit
  config.target = common.condition("Sinus rhythm", 75)  # of the source
  # A statement to add; None, and no other edit: right bundle branch block.
  config.add = ml_collections.config_dict.placeholder(str)
  # Statements to have instead, separated by '|', as many as the target's.
  config.swap = ml_collections.config_dict.placeholder(str)
  # One of the target's statements, to weigh anew.
  config.reweight = ml_collections.config_dict.placeholder(str)
  config.weight = 1.0  # of the added or re-weighted statement's attention
  # The last share of the schedule, which is edited; the published 0.2 keeps
  # more of the source and shows less of the edit.
  config.threshold = 1.0
  # Whose attention over the statements the edit's is made of: "own", or
  # "source" as published, likewise.
  config.attention = "own"
  config.lock()
  return config
