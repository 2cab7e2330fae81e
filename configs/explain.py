"""Which statement each part of an ECG attends to, over time.

  ecgtwin explain --target="Sinus rhythm|Ventricular premature complex"

Writes attention_N.png (the leads, coloured by statement, above the attention
over time), attention.npz, explained.json and the generated ECGs into the
workdir; seconds on a CPU.
"""

import ml_collections

from configs import common


def get_config():
  config = ml_collections.ConfigDict()
  config.job = "explain"  # what the command does
  config.workdir = "runs/explained"  # where results go
  config.twin = "real-small"  # simulated-small, or a twin directory
  # Of statements the twin does not know: a name, or a model's folder.
  config.encoder = ml_collections.config_dict.placeholder(str)
  config.update(common.generation())
  config.num_samples = 1  # ECGs to explain
  config.target = common.condition(
    "Sinus rhythm|Right bundle branch block|Ventricular premature complex", 80
  )
  config.of_record = False  # explains the record itself, in place of twins
  config.between = (0.0, 1.0)  # steps that count: share from clean to noise
  config.blocks = ()  # of the network that count; (): all
  config.lock()
  return config
