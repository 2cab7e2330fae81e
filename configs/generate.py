"""ECGs of one person under another condition, from a trained twin.

  python -m ecgtwin_jax.main --config=configs/generate.py \\
    --config.record=DIR/s0010_re --config.now.statements="Sinus rhythm" \\
    --config.target.statements="Sinus rhythm|Ventricular premature complex"

Writes a WFDB record and a picture per ECG, overview.png (the reference above
its twins) and generated.json into the workdir; seconds on a CPU.
"""

import ml_collections

from configs import common


def get_config():
  config = ml_collections.ConfigDict()
  config.job = "generate"
  config.workdir = "runs/generated"
  config.twin = "runs/demo/twin"  # a twin directory
  config.update(common.generation())
  config.target = common.condition(
    "Sinus rhythm|Ventricular premature complex", 80
  )
  config.lock()
  return config
