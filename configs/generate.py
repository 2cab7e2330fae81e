"""ECGs of one person under another condition, from a trained twin.

  ecgtwin generate DIR/s0010_re --now="Sinus rhythm" \\
    --target="Sinus rhythm|Ventricular premature complex" --rate=80

Writes a record and a picture per ECG, overview.png (the reference above its
twins), beats.png (the twins' median beats over the reference's) and
generated.json, with a self-check of what was asked against what came out, into
the workdir; seconds on a CPU.

Many people and conditions, a line each of a CSV file:

  ecgtwin generate --requests=requests.csv --workdir=runs/requested

Its columns: record (relative to the file's folder), now_statements,
target_statements (separated by '|') and target_heart_rate; and, where they are
known, start, now_heart_rate, now_age, now_sex, target_age, target_sex, n, seed,
and beats: "0.4 1.2 pvc@2.0 4.2", or "pvc@4.2" alone to put one into a rhythm.
Writes a folder per row; a second run does what is missing. Rows that cannot be
done are listed with their reasons in failed.csv and do not stop the others.
Exit code: 0 all rows done, 3 some failed, 1 the file itself cannot be used.
"""

import ml_collections

from configs import common


def get_config():
  config = ml_collections.ConfigDict()
  config.job = "generate"  # what the command does
  config.workdir = "runs/generated"  # where results go
  config.twin = "real-small"  # simulated-small, or a twin directory
  # Of statements the twin does not know: a name, or a model's folder.
  config.encoder = ml_collections.config_dict.placeholder(str)
  config.update(common.generation())
  config.target = common.condition(
    "Sinus rhythm|Right bundle branch block|Ventricular premature complex", 80
  )
  config.requests = ml_collections.config_dict.placeholder(str)  # a CSV file
  config.picture = common.picture()
  config.batch_size = 64  # ECGs of a request file made at once, on all devices
  config.lock()
  return config
