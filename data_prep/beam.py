"""Shards written by Apache Beam, on this machine or on a cluster."""

import shlex
from collections.abc import Callable, Sequence


def run(jobs: Sequence[Callable[[], int]], options: str) -> None:
  """Runs the jobs that write shards, each on any worker of a Beam pipeline.

  The result is that of worker processes: what a shard holds depends on the data
  alone. Every worker must see input and output under the same paths: a network
  file system, or a bucket that is mounted.

  Args:
    jobs: jobs to run; picklable.
    options: options of the pipeline, as Beam's command line takes them, such as
      `--runner=DirectRunner --direct_num_workers=4
      --direct_running_mode=multi_processing`.

  Raises:
    ValueError: Apache Beam is not installed.
  """
  try:
    import apache_beam
    from apache_beam.options.pipeline_options import PipelineOptions
  except ImportError:
    raise ValueError(
      "Apache Beam is not installed: pip install 'ecgtwin_jax[beam]'"
    ) from None
  arguments = PipelineOptions(shlex.split(options))
  with apache_beam.Pipeline(options=arguments) as pipeline:
    _ = (
      pipeline
      | apache_beam.Create(list(enumerate(jobs)))
      | apache_beam.Reshuffle()  # or one worker would get them all
      | apache_beam.Map(_write)
    )


def _write(numbered: tuple[int, Callable[[], int]]) -> int:
  _, job = numbered
  return job()
