"""ECGs of one person, and the same ECGs with one statement changed.

  python -m ecgtwin_jax.main --config=configs/edit.py \\
    --config.add="Right bundle branch block" --config.weight=1.5

Give one of add, swap and reweight. Writes edited.png (each source above its
edit), a record of each and edited.json into the workdir; seconds on a CPU.
"""

import ml_collections

from configs import common


def get_config():
  config = ml_collections.ConfigDict()
  config.job = "edit"
  config.workdir = "runs/edited"
  # A twin directory; None: the shipped one, of simulated patients.
  config.twin = ml_collections.config_dict.placeholder(str)
  # Of statements the twin does not know: a name, or a model's folder.
  config.encoder = ml_collections.config_dict.placeholder(str)
  config.update(common.generation())
  config.num_samples = 4
  config.target = common.condition("Sinus rhythm", 75)  # of the source
  config.add = ml_collections.config_dict.placeholder(str)  # a statement
  # Statements to have instead, separated by '|', as many as the target's.
  config.swap = ml_collections.config_dict.placeholder(str)
  config.reweight = ml_collections.config_dict.placeholder(str)  # one of them
  config.weight = 1.0  # of the added or re-weighted statement's attention
  config.threshold = 0.2  # the last share of the schedule, which is edited
  config.lock()
  return config
