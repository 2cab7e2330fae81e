"""A page in the browser: upload an ECG, generate, explain, edit, download.

  ecgtwin app

Prints its address, http://127.0.0.1:7860, and serves until Ctrl-C; needs
pip install -e '.[app]'. It is for this machine alone; --host=0.0.0.0
opens it to the network, without a password.
"""

import ml_collections

from configs import common


def get_config():
  config = ml_collections.ConfigDict()
  config.job = "app"  # what the command does
  config.workdir = "runs/app"  # where results go
  config.twin = "real-small"  # simulated-small, or a twin directory
  # Of statements the twin does not know: a name, or a model's folder.
  config.encoder = ml_collections.config_dict.placeholder(str)
  config.host = "127.0.0.1"  # who may connect: this machine
  config.port = 7860  # of the address
  config.share = False  # a public address through Gradio's servers
  config.max_upload_mb = 20.0  # of one reference, all its files
  # What the page opens with: a reference and what it shows, a target, numbers.
  config.update(common.generation())
  config.picture = common.picture()
  config.num_samples = 4  # ECGs per condition
  config.target = common.condition(
    "Sinus rhythm|Right bundle branch block|Ventricular premature complex", 80
  )
  config.lock()
  return config
