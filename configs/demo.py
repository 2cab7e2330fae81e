"""Everything at small size: cohort, three trainings, a twin, its pictures.

  ecgtwin demo --workdir=runs/demo

A toy training on simulated patients; some minutes on 4 CPU cores.
"""

import ml_collections

from configs import common


def get_config():
  config = ml_collections.ConfigDict()
  config.job = "demo"  # what the command does
  config.workdir = "runs/demo"  # where results go
  config.update(common.generation())
  config.picture = common.picture()
  config.targets = {
    "sinus": common.condition("Sinus rhythm", 70),
    "pvc": common.condition("Sinus rhythm|Ventricular premature complex", 80),
    "rbbb": common.condition("Sinus rhythm|Right bundle branch block", 75),
  }
  config.lock()
  return config
