"""ECGTwin, the user's object: a reference ECG in, the person's ECGs out."""

import dataclasses
import os
import tempfile
import warnings
from collections.abc import Sequence
from typing import Unpack

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from ecgtwin_jax.beats.criteria_checks import find_mismatches
from ecgtwin_jax.beats.notation import Beats
from ecgtwin_jax.beats.rhythm import Rhythm
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.ecg import ECG
from ecgtwin_jax.data.errors import ArgumentError, require_type
from ecgtwin_jax.inference import hub, sampling, twin_directory
from ecgtwin_jax.inference.conditioning import ConditionArrays, Conditioner
from ecgtwin_jax.inference.edits import read_edit
from ecgtwin_jax.inference.networks import (
  DECODE_CHUNK,
  PARTS,
  SAMPLE_CHUNK,
  Networks,
)
from ecgtwin_jax.inference.results import (
  Edited,
  Explained,
  Generated,
  Rows,
  as_generated,
)
from ecgtwin_jax.inference.row_generator import RowGenerator
from ecgtwin_jax.inference.sampling import (
  SamplingOptions,
  Settings,
)
from ecgtwin_jax.text.findings import names_rhythm
from ecgtwin_jax.text.statements import StatementEncoder, StatementTable


class ECGTwin:
  """Generates a person's ECG under a condition, from one reference ECG.

  Make one with `ECGTwin.from_checkpoint(directory)`.

  Attributes:
    statements: those the twin was trained on.
    hyper: {part: hyper-parameters}.
    digest: identifies the weights, for the record of what made an ECG.
    networks: the modules with their weights.
    path: the twin directory that it was loaded from.
  """

  def __init__(
    self,
    parts: dict,
    table: StatementTable | None,
    digest: str,
    encoder: StatementEncoder | str | None = None,
    path: str | os.PathLike | None = None,
  ):
    self.path = path
    self.networks = Networks(parts)
    self.hyper = {part: hyper for part, (hyper, _) in parts.items()}
    self.digest = digest
    name = self.hyper["denoiser"]["statement_encoder"]
    self._conditioner = Conditioner(table, name, encoder)
    self._generator = RowGenerator(self.hyper, self.networks, self._conditioner)

  @classmethod
  def from_checkpoint(
    cls,
    path: str | os.PathLike,
    encoder: StatementEncoder | str | None = None,
  ) -> "ECGTwin":
    """Loads a twin directory (a local folder or gs://).

    Args:
      path: the directory.
      encoder: encoder of statements that are not in the twin's table: an
        object, or a name or folder for `get_encoder`. None looks up the name
        that the twin was trained with, which finds no language model in a
        folder of yours.

    Raises:
      FileNotFoundError: there is no twin directory.
      ValueError: it is damaged, or lacks a part; or the encoder is not the one
        that the twin was trained with.
    """
    index = twin_directory.read_index(path)
    parts = {
      p: twin_directory.read_part(path, p) for p in PARTS if p in index["parts"]
    }
    digest = "-".join(e["sha256"][:8] for e in index["parts"].values())
    return cls(parts, twin_directory.read_table(path), digest, encoder, path)

  @classmethod
  def from_pretrained(
    cls,
    name: str | os.PathLike = "real-small",
    encoder: StatementEncoder | str | None = None,
    *,
    revision: str | None = None,
  ) -> "ECGTwin":
    """Loads a twin that comes with the package, or one of the Hugging Face hub.

    Of the hub only the files of a twin directory are fetched, once: they stay
    in its local cache, which also serves without a network. Every part's sha256
    must be the one in twin.json.

    Args:
      name: "real-small", trained on simulated and real recordings, or
        "simulated-small", whose denoiser knows simulated patients alone. Their
        README.md is the model card and names the licences of what they have
        learned from (CC BY 4.0, ODC-By 1.0). Or "owner/name" on the hub, or a
        twin directory.
      encoder: as in from_checkpoint.
      revision: branch, tag or commit on the hub; None: the newest.

    Raises:
      ValueError: there is no such twin, it cannot be reached, or it is damaged.
      TypeError: the name is no text.
    """
    if not isinstance(name, (str, os.PathLike)):
      raise ArgumentError(
        f"name={name!r} must be the name of a twin, such as 'real-small'"
      )
    return cls.from_checkpoint(hub.find(name, revision), encoder)

  def save_pretrained(self, path: str | os.PathLike) -> None:
    """Copies the twin directory that this twin was loaded from.

    Args:
      path: folder to make; a twin that is there is replaced.

    Raises:
      ValueError: the folder holds something else, or the twin was not loaded
        from a directory.
    """
    if self.path is None:
      raise ValueError(
        "this twin was not loaded from a directory: write_twin makes one"
      )
    twin_directory.copy_twin(self.path, path)

  def push_to_hub(
    self,
    name: str,
    *,
    private: bool = True,
    token: str | None = None,
    message: str = "A twin of ecgtwin_jax",
  ) -> str:
    """Sends the twin to the Hugging Face hub, for `from_pretrained(name)`.

    Args:
      name: "owner/name"; the repository is made where it is not there.
      private: whether a new repository is.
      token: of the hub; None: that of `hf auth login`.
      message: of the commit.

    Returns:
      The repository's address.

    Raises:
      ValueError: the hub does not take it, or as save_pretrained.
    """
    with tempfile.TemporaryDirectory() as folder:
      self.save_pretrained(folder)
      return hub.push(
        folder, name, private=private, token=token, message=message
      )

  def export(
    self,
    path: str | os.PathLike,
    *,
    statements: Sequence[str] = (),
    **settings: Unpack[SamplingOptions],
  ) -> None:
    """Writes a folder that makes this twin's ECGs without this package.

    Its programs run wherever JAX does, for any batch, and its
    ecgtwin_loader.py says how. The files' sha256 are checked when it is loaded.

    Args:
      path: folder to make; an exported twin that is there is replaced.
      statements: more statements than those the twin was trained on, which its
        encoder then embeds.
      **settings: sampling settings, as `generate` has them: they are fixed.

    Raises:
      ValueError: the folder holds something else, a setting is out of range,
        there are no statements, or no rhythm model though beats are needed.
    """
    from ecgtwin_jax.inference import export

    export.write(self, path, statements, self.settings(**settings))

  def export_page(
    self,
    path: str | os.PathLike,
    *,
    runtime: str | os.PathLike = "node_modules/onnxruntime-web",
    statements: Sequence[str] = (),
    **settings: Unpack[SamplingOptions],
  ) -> None:
    """Writes a folder with a page that makes this twin's ECGs in the browser.

    Any server of files will do, `python -m http.server -d DIR`; nothing leaves
    the browser. The folder's .onnx files, for one ECG at a time, run in any
    onnxruntime. Needs the extra `onnx`, and the npm package onnxruntime-web.

    Args:
      path: folder to make; an exported page that is there is replaced.
      runtime: folder of the installed npm package, of which three files are
        copied.
      statements: more statements than those the twin was trained on, which its
        encoder then embeds.
      **settings: sampling settings, as `generate` has them: they are fixed.

    Raises:
      ValueError: as `export`, the runtime is not there, or the sampler draws
        noise at its steps.
    """
    from ecgtwin_jax.inference import web_page

    chosen = self.settings(**settings)
    web_page.write(self, path, runtime, statements, chosen)

  def __repr__(self) -> str:
    name = os.path.basename(os.fspath(self.path or "").rstrip("/"))
    name = f"{name}, " if name else ""
    return f"ECGTwin({name}{len(self.statements)} statements)"

  @property
  def statements(self) -> tuple[str, ...]:
    """The statements that the twin was trained on."""
    table = self._conditioner.table
    return table.statements if table else ()

  @property
  def rhythms(self) -> tuple[str, ...]:
    """Those of the statements that say which rhythm there is."""
    return tuple(filter(names_rhythm, self.statements))

  def extract_base(
    self,
    reference: ECG | Sequence[ECG],
    condition: Condition | Sequence[Condition],
  ) -> Float[np.ndarray, " d"]:
    """Extracts the base vector, who the reference is apart from its condition.

    From the mean of the reference's latent, so the same ECG gives the same
    vector. Several references of one person give the mean of their vectors.
    A reference that plainly is not what its condition says is warned of.

    Args:
      reference: 10 s, any rate; or several.
      condition: what the reference shows; or one for each of several.

    Raises:
      ValueError: a reference is not 10 s long, a condition lacks what the twin
        needs, there is no reference, or there are not as many conditions.
    """
    references = _as_list(reference, "reference", ECG, "from read_ecg")
    conditions = _as_list(condition, "condition", Condition, "what it shows")
    if not references or len(references) != len(conditions):
      raise ValueError(
        f"{len(references)} references must be at least one, with a condition"
        f" each: {len(conditions)} given"
      )
    mismatches = [
      f"what the reference shows: {text}"
      for ecg, shown in zip(references, conditions, strict=True)
      for text in find_mismatches(ecg, shown)
    ]
    self._warn(*conditions, target=False, more=mismatches)
    return self.extract_bases(references, conditions).mean(axis=0)

  def extract_bases(
    self,
    references: Sequence[ECG],
    conditions: Sequence[Condition],
    *,
    batch_size: int = DECODE_CHUNK,
    mesh: Mesh | None = None,
  ) -> Float[np.ndarray, "n d"]:
    """Extracts the base vectors of n references, as `extract_base`.

    Args:
      references: 10 s each, any rate.
      conditions: what each of them shows.
      batch_size: references per call of the networks.
      mesh: devices that share a call, which is always full then.

    Raises:
      ValueError: as extract_base, or a batch that does not split evenly.
    """
    arrays = [
      self.arrays(condition, "base_extractor")
      for _, condition in zip(references, conditions, strict=True)
    ]
    stacked = tuple(np.stack(rows) for rows in zip(*arrays))
    return self.networks.extract(
      list(references), stacked, batch_size=batch_size, mesh=mesh
    )

  def generate(
    self,
    base: Float[np.ndarray, " d"],
    condition: Condition,
    *,
    num_samples: int = 8,
    sampler: str = "dpm++",
    steps: int | None = 5,
    eta: float | int | None = None,
    statement_guidance: float | int | None = None,
    person_guidance: float | int | None = None,
    temperature: float | int | None = None,
    shape_temperature: float | int | None = None,
    x0_limit: str = "clip",
    consistent_leads: bool = False,
    seed: int = 0,
    noise: Float[np.ndarray, "n 128 c"] | None = None,
    beats: Beats | None = None,
    sampling_rate: float | int | None = None,
  ) -> Generated:
    """Generates ECGs of the person `base` under a condition.

    Args:
      base: base vector, from extract_base.
      condition: what the ECGs shall show. Where it says no rhythm, the sinus
        node's is taken, with a warning.
      num_samples: how many.
      sampler: "dpm++", "sde-dpm++", "ddim" or "ddpm" (as published, with
        steps=None).
      steps: calls of the network; None calls every trained step.
      eta: noise of ddim, 0..1 (None: 0), or of sde-dpm++, 0..2 (None: 1).
      statement_guidance: scale of classifier-free guidance by the statements; 1
        samples as trained, more follows the statements more closely. None,
        here and in the next three: the twin's own, chosen after its training.
      person_guidance: scale of classifier-free guidance by the base vector; 1
        samples as trained, more follows the person more closely.
      temperature: factor of the noise that is drawn to start from; 1 samples as
        trained, less varies less from sample to sample.
      shape_temperature: factor, beside `temperature`, of what all beats of that
        noise have in common: less draws less of what the reference leaves open
        of the shape of beats, see sampling.Settings. 1 for a twin that is told
        of no beats.
      x0_limit: thresholding of predicted clean latents: "clip" (static),
        "dynamic" or "none"; see sampling.Settings.
      consistent_leads: projects on ECGs whose limb leads add up exactly.
      seed: sample i depends on (seed, i) alone.
      noise: the latents to start from, in place of drawn ones, which no
        temperature changes; a sampled rhythm still is the seed's.
      beats: when the beats of every sample fall: times of R peaks in seconds,
        pairs of a time and a kind ("usual", "pvc", "pac", "paced"), a text
        such as "0.4 1.2 pvc@2.0 4.2", or an earlier sample's `out.beats[0]`.
        Premature beats alone, such as "pvc@4.2", are put into a sampled
        rhythm. None: a rhythm is sampled for each sample, from its seed.
      sampling_rate: of the ECGs, in Hz, interpolated: it adds no detail to the
        102.4 Hz that the networks make. None: these.

    Raises:
      ValueError: an argument out of range, beats that cannot be or that this
        twin is not told of, or guidance of a twin that was trained without
        dropping that condition.
      TypeError: an argument of another type.
    """
    _check_asked(base, condition, num_samples, seed)
    if sampling_rate is not None:
      require_type(sampling_rate, "sampling_rate", float, "samples per second")
      if not 50 <= sampling_rate <= 10_000:
        raise ValueError(f"{sampling_rate=} must be in 50..10000 Hz")
    settings = self.settings(
      sampler=sampler,
      steps=steps,
      eta=eta,
      statement_guidance=statement_guidance,
      person_guidance=person_guidance,
      temperature=temperature,
      shape_temperature=shape_temperature,
      x0_limit=x0_limit,
      consistent_leads=consistent_leads,
    )
    if noise is not None and len(noise) != num_samples:
      raise ValueError(f"{noise.shape=} must start with {num_samples=}")
    self._warn(condition)
    condition = self.state_rhythm(condition)
    rows = self.generate_rows(
      [base] * num_samples,
      [condition] * num_samples,
      [seed] * num_samples,
      range(num_samples),
      settings,
      noise=noise,
      beats=None if beats is None else [beats] * num_samples,
    )
    out = as_generated(rows, "twin", condition, self._facts(seed, settings))
    if sampling_rate is None:
      return out
    ecgs = [ecg.at_rate(sampling_rate) for ecg in out.ecgs]
    return dataclasses.replace(out, ecgs=ecgs)

  def generate_rows(
    self,
    bases: Sequence[Float[np.ndarray, " d"]] | Float[np.ndarray, "n d"],
    conditions: Sequence[Condition],
    seeds: Sequence[int],
    numbers: Sequence[int],
    settings: Settings,
    *,
    noise: Float[np.ndarray, "n 128 c"] | None = None,
    beats: Sequence[Beats | None] | None = None,
    batch_size: int = SAMPLE_CHUNK,
    mesh: Mesh | None = None,
  ) -> Rows:
    """Generates one ECG per row, each of its own person and condition.

    Everything that makes ECGs goes through here. Row k is sample numbers[k] of
    `generate` with that row's base vector, condition and seed, up to rounding,
    whatever the other rows are. Nothing is warned of; see `remarks`.

    Args:
      bases: base vectors of n people.
      conditions: what each ECG shall show.
      seeds: seed of each row.
      numbers: number of each sample under its seed.
      settings: how to sample.
      noise: the n latents to start from, in place of drawn ones.
      beats: beats of each row, as `generate` has them; None: all are sampled.
      batch_size: rows per call of the denoiser.
      mesh: devices that share a call, which is always full then.

    Raises:
      ValueError: as generate, or a batch that does not split evenly.
    """
    return self._generator.generate(
      bases,
      conditions,
      seeds,
      numbers,
      settings.for_twin(self.hyper["denoiser"]),
      noise=noise,
      beats=beats,
      batch_size=batch_size,
      mesh=mesh,
    )

  def draw_rhythms(
    self,
    conditions: Sequence[Condition],
    seeds: Sequence[int] | range,
    numbers: Sequence[int] | range,
  ) -> list[Rhythm]:
    """Samples the rhythms that `generate_rows` gives its rows without beats.

    Args:
      conditions: what each ECG shall show.
      seeds: seed of each row.
      numbers: number of each sample under its seed.

    Raises:
      ValueError: the twin has no rhythm model.
    """
    rngs = sampling.make_keys(seeds, numbers)
    return self._generator.draw_rhythms(conditions, rngs)

  def edit(
    self,
    base: Float[np.ndarray, " d"],
    condition: Condition,
    *,
    add: str | None = None,
    swap: Condition | Sequence[str] | None = None,
    reweight: str | None = None,
    weight: float | int = 1.0,
    threshold: float | int = 1.0,
    attention: str = "own",
    num_samples: int = 4,
    seed: int = 0,
    beats: Beats | None = None,
    **settings: Unpack[SamplingOptions],
  ) -> Edited:
    """Generates ECGs under a condition, and edits of them from the same noise.

    Source and edit share every step down to the threshold, and the beats: where
    the edit adds a PVC, one beat becomes one; where it says another rhythm or
    rate, it has another sampled rhythm. As published, with `attention="source"`
    and a threshold of 0.2, the edit's attention over the statements is made of
    the source's: it keeps more and shows less than it does by default.

    Args:
      base: base vector, from extract_base.
      condition: the source's condition.
      add: a statement to append to the condition's.
      swap: statements to have in place of the condition's, one for each; or a
        condition, whose heart rate, age and sex then count, too.
      reweight: one of the condition's statements.
      weight: factor of the attention that the added or re-weighted statement
        gets.
      threshold: share of the schedule, counted from its clean end, in which
        the edit goes its own way: 0.2 is steps 0..199 of 1000.
      attention: "own" or "source": whose attention over the statements the
        edit's is made of.
      num_samples: how many.
      seed: seed, as in generate; the source is what generate gives with it.
      beats: beats of the source, as in generate.
      **settings: sampling settings, as `generate` has them.

    Raises:
      ValueError: not exactly one of add, swap and reweight is given, a swap has
        another number of statements, the statement to re-weight is not among
        the condition's, a number is out of range, or the twin has no
        attention over statements.
    """
    _check_asked(base, condition, num_samples, seed)
    chosen = self.settings(**settings)
    # A swap has a statement for each that is given.
    stated = condition if swap is not None else self.state_rhythm(condition)
    lacking = []
    if stated is not condition:
      lacking = self.remarks(condition, target=True)
      condition = stated
    change = read_edit(
      self._conditioner,
      condition,
      add=add,
      swap=swap,
      reweight=reweight,
      weight=weight,
      threshold=threshold,
      attention=attention,
    )
    self._warn(condition, change.condition, more=lacking)
    source, edited = self._generator.edit(
      base, condition, change, num_samples, seed, chosen, beats
    )
    facts = self._facts(seed, chosen)
    return Edited(
      as_generated(source, "source", condition, facts),
      as_generated(edited, "edited", change.condition, facts | change.facts()),
    )

  def explain(
    self,
    base: Float[np.ndarray, " d"],
    condition: Condition,
    *,
    num_samples: int = 1,
    seed: int = 0,
    beats: Beats | None = None,
    ecg: ECG | None = None,
    between: tuple[float | int, float | int] = (0.0, 1.0),
    **settings: Unpack[SamplingOptions],
  ) -> Explained:
    """Finds which statement each part of an ECG attends to.

    Args:
      base: base vector, from extract_base.
      condition: what the ECGs shall show.
      num_samples: how many.
      seed: seed, as in generate; the ECGs are what generate gives with it.
      beats: beats of the generated ECGs, as in generate.
      ecg: 10 s to explain instead of generated ones: its latent is noised to
        each step, with other noise in each sample.
      between: share of the schedule, counted from its clean end, whose steps
        count.
      **settings: sampling settings, as `generate` has them.

    Raises:
      ValueError: an argument is out of range, no step lies in `between`, or
        the twin has no attention over statements.
    """
    _check_asked(base, condition, num_samples, seed)
    chosen = self.settings(**settings)
    self._warn(condition, target=ecg is None)
    asked = (num_samples, seed, chosen, between)
    if ecg is None:
      condition = self.state_rhythm(condition)
      attention, rows = self._generator.explain(base, condition, *asked, beats)
      facts = self._facts(seed, chosen)
      ecgs = as_generated(rows, "twin", condition, facts).ecgs
    elif beats is not None:
      raise ValueError(f"{beats=} must be None: those of the ECG are known")
    else:
      attention = self._generator.explain_given(ecg, base, condition, *asked)
      ecgs = [ecg.resample()] * num_samples
    count = len(condition.statements)
    return Explained(attention[..., :count], ecgs, condition.statements)

  def decode(
    self, latents: Float[np.ndarray, "n 128 c"]
  ) -> Float[np.ndarray, "n 1024 12"]:
    """Decodes scaled latents to signals in mV, in chunks."""
    return self.networks.decode(latents)

  def settings(self, **options: Unpack[SamplingOptions]) -> Settings:
    """How this twin samples, with its own guidance where none is given.

    Args:
      **options: sampling settings, as `generate` has them.
    """
    return Settings(**options).for_twin(self.hyper["denoiser"])

  def arrays(self, condition: Condition, part: str) -> ConditionArrays:
    """One condition as the arrays of a part; see conditioning.Conditioner.

    Args:
      condition: what to turn into arrays.
      part: "base_extractor" or "denoiser".
    """
    return self._generator.arrays(condition, part)

  def remarks(self, condition: Condition, *, target: bool = False) -> list[str]:
    """What is odd about a condition, a sentence each.

    A heart rate that contradicts a statement; a statement that the twin was not
    trained on, with the nearest one that it was. What makes ECGs of a single
    person warns of them.

    Args:
      condition: what an ECG shows.
      target: whether it is what ECGs shall show, which must say the rhythm.
    """
    texts = self._conditioner.remarks(condition)
    return texts + (self._conditioner.remarks_on_rhythm(condition) * target)

  def state_rhythm(self, condition: Condition) -> Condition:
    """The condition with a sinus rhythm where it says no rhythm.

    As `generate` takes it, which warns of it.

    Args:
      condition: what ECGs shall show.
    """
    return self._conditioner.state_rhythm(condition)

  def _warn(
    self,
    *conditions: Condition,
    target: bool = True,
    more: Sequence[str] = (),
  ) -> None:
    """Warns at the line that called the method that calls this."""
    texts = [
      text
      for shown in conditions
      for text in self.remarks(shown, target=target)
    ]
    for text in dict.fromkeys([*texts, *more]):
      warnings.warn(text, stacklevel=3)

  def check_beats(self, beats: Beats | None) -> None:
    """Refuses beats that `generate` would refuse.

    Raises:
      ValueError: they cannot be, or this twin is told of no beats.
    """
    self._generator.check_beats(beats)

  def _facts(self, seed: int, settings: Settings) -> dict:
    return {"twin": self.digest, "seed": seed, **dataclasses.asdict(settings)}


def _as_list(value, name, kind, expected) -> list:
  """One or several, as a list.

  Raises:
    ArgumentError: something among them is of another type.
  """
  if isinstance(value, kind):
    return [value]
  if not isinstance(value, Sequence) or isinstance(value, str):
    require_type(value, name, kind, expected)
  for each in value:
    require_type(each, name, kind, expected)
  return list(value)


def _check_asked(base, condition, num_samples, seed) -> None:
  if not isinstance(base, (np.ndarray, jax.Array)):
    raise ArgumentError(
      f"base is of type {type(base).__name__}, must be an array: the vector"
      " that extract_base gives"
    )
  require_type(condition, "condition", Condition, "what the ECGs shall show")
  require_type(num_samples, "num_samples", int, "how many ECGs")
  require_type(seed, "seed", int, "of the draw")
  if num_samples < 1:
    raise ValueError(f"{num_samples=} must be at least 1")


def load_twin(
  path: str | os.PathLike,
  encoder: StatementEncoder | str | None = None,
) -> ECGTwin:
  """The twin of a directory, or one of the package by its name.

  Args:
    path: a twin directory, or a name such as "real-small".
    encoder: as in ECGTwin.from_checkpoint.

  Raises:
    FileNotFoundError: there is no twin directory.
    ValueError: as ECGTwin.from_checkpoint.
  """
  bare = os.path.basename(path) == os.fspath(path)
  own = twin_directory.shipped(os.fspath(path))
  if bare and not twin_directory.is_twin(path) and twin_directory.is_twin(own):
    return ECGTwin.from_pretrained(path, encoder)
  return ECGTwin.from_checkpoint(path, encoder)
