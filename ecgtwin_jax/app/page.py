"""The page: where its controls stand, and which action each button starts."""

import functools
import html
import pathlib
import tempfile
import traceback
from collections.abc import Callable

import gradio as gr
from ml_collections import ConfigDict

from ecgtwin_jax.app.actions import (
  EDITS,
  MAX_SAMPLES,
  MAX_STEPS,
  Change,
  Form,
  ReferenceInfo,
  Response,
  Session,
)
from ecgtwin_jax.app.guard import limit_places
from ecgtwin_jax.app.uploads import DATA, MAINS, SECONDS
from ecgtwin_jax.data.conditions import Condition
from ecgtwin_jax.data.leads import LEADS
from ecgtwin_jax.inference.sampling import EDIT_ATTENTION

TITLE = "ECG twins"
INTRODUCTION = """# ECG twins
Give a 12-lead ECG and say what it shows; get ECGs of the same person under
another condition. For research: what is generated is synthetic, and not for
diagnosis or treatment.

One request is worked on at a time and {waiting} more may wait, each with its
place in the queue shown. Limits: {samples} twins and {steps} steps a request,
{mb:g} MB a reference, {seconds} s to read it. Uploads and results are deleted
after an hour.
"""
SEXES = [("female", "F"), ("male", "M"), ("not known", "")]
SECONDS_ON_DISK = 3600  # of uploads and results, on the server
WAITING = 32  # requests in the queue; more are refused
LONGEST = 500  # characters of an error in words
STYLE = """
footer {display: none !important}
.gradio-container {max-width: 1800px !important; margin: 0 auto}
.icon-wrap {flex-shrink: 0; min-width: 20px}
@media (max-width: 800px) {
  .tab-container button {padding: 0 0.5rem !important}
  .sheet {max-width: calc(100vw - 4rem)}
  .sheet .image-frame {overflow-x: auto; justify-content: flex-start}
  .sheet img {min-width: 800px; max-width: none !important}
  .sheets {height: 480px !important}
}
"""


def build(session: Session, target: Condition, config: ConfigDict) -> gr.Blocks:
  """Lays the page out and connects it.

  Args:
    session: does the work.
    target: the condition that the page opens with.
    config: the app job's configuration: the numbers that the page opens with.
  """
  with gr.Blocks(
    title=TITLE,
    analytics_enabled=False,
    fill_width=True,
    delete_cache=(SECONDS_ON_DISK // 4, SECONDS_ON_DISK),
  ) as blocks:
    gr.Markdown(
      INTRODUCTION.format(
        waiting=WAITING,
        samples=MAX_SAMPLES,
        steps=MAX_STEPS,
        mb=session.max_upload_mb,
        seconds=SECONDS,
      )
    )
    with gr.Row():
      with gr.Column(scale=2, min_width=320):
        fields = _controls(session, target, config)
        make = gr.Button("Generate twins", variant="primary")
      with gr.Column(scale=5, min_width=320), gr.Tabs() as tabs:
        with gr.Tab("Reference", id="reference"):
          info = _reference_tab(session)
        with gr.Tab("Twins", id="twins"):
          twins = [
            _text("Self-check", "Nothing yet: press “Generate twins”."),
            _download(),
            _picture("The reference above its twins"),
            _gallery("All leads of each"),
          ]
          with gr.Accordion("The same twins in Python", open=False):
            twins.append(
              gr.Code(language="python", label="Script", interactive=False)
            )
        with gr.Tab("Attention", id="attention"):
          gr.Markdown("Which statement each part of the twins attends to.")
          explain = gr.Button("Explain the twins")
          reasons = [
            _text("Shares of the attention", "Nothing yet."),
            _gallery("Attention"),
          ]
        with gr.Tab("Edit", id="edit"):
          change = _edit_controls(session)
          edit = gr.Button("Edit the twins")
          edits = [
            _text("What the edit changed", "Nothing yet."),
            _download(),
            _picture("Each twin above its edit"),
          ]
    # One at a time: they share the processors, and Python's warnings.
    event = dict(
      concurrency_limit=1, concurrency_id="twin", api_visibility="private"
    )
    controls = list(fields.values())
    count = len(controls)

    def run_edit(folder, *values):
      return session.edit(
        Form(*values[:count]), Change(*values[count:]), folder
      )

    make.click(
      lambda: gr.Tabs(selected="twins"),
      outputs=tabs,
      queue=False,
      api_visibility="private",
    )
    make.click(
      _respond(
        lambda folder, *values: session.generate(Form(*values), folder),
        _show,
        lambda text: [text, _download(), None, None, None],
      ),
      controls,
      twins,
      scroll_to_output=True,
      **event,
    )
    explain.click(
      _respond(
        lambda folder, *values: session.explain(Form(*values), folder),
        _show,
        lambda text: [text, None],
      ),
      controls,
      reasons,
      **event,
    )
    edit.click(
      _respond(run_edit, _show, lambda text: [text, _download(), None]),
      [*controls, *change],
      edits,
      **event,
    )
    facts = ("now_statements", "now_heart_rate", "now_age", "now_sex")
    fields["files"].upload(
      lambda: gr.Tabs(selected="reference"),
      outputs=tabs,
      queue=False,
      api_visibility="private",
    )
    said = [fields[name] for name in ("sampling_rate", "leads", "unit")]
    for changed in (
      fields["files"].change,
      *(field.submit for field in (fields["start"], *said[:2])),
      said[2].input,
    ):
      changed(
        _respond(
          lambda folder, files, start, *values: session.show_reference(
            files, start, folder, *values
          ),
          _show_info,
          lambda text: [None, text, *[gr.skip()] * len(facts)],
        ),
        [fields["files"], fields["start"], *said],
        [*info, *(fields[fact] for fact in facts)],
        **event,
      )
  blocks.queue(max_size=WAITING, api_open=False)
  limit_places(blocks._queue)  # noqa: SLF001 (Gradio has no other way)
  return blocks


def _controls(session, target, config):
  """The controls on the left by their names in Form, in its order."""
  now, sampling = session.now, config.sampling
  own = session.twin.settings(**sampling)
  statements = functools.partial(_statements, session)
  # Gradio's number shows 0 where nothing is given.
  number = functools.partial(gr.Textbox, max_lines=1, min_width=90)
  whole = functools.partial(gr.Number, precision=0, min_width=80)
  fields = {}
  with gr.Group():
    fields["files"] = gr.File(
      label="Reference: .hea with .dat, .mat or .xyz; .csv, .npz, .npy, .mat,"
      f" EDF, DICOM, XML, SCP-ECG; at most {session.max_upload_mb:g} MB (none:"
      f" {session.reference.record})",
      file_count="multiple",
      file_types=[*MAINS, *DATA],
      height=150,
    )
    fields["start"] = number("0", label="Seconds to skip in it (Enter: look)")
    said = _file_controls(number)
    fields["now_statements"] = statements(
      now.statements, "What the reference shows"
    )
    with gr.Row():
      fields["now_heart_rate"] = number(
        _as_text(now.heart_rate), label="Heart rate in it (bpm)"
      )
      fields["now_age"] = number(_as_text(now.age), label="Age then (years)")
    fields["now_sex"] = gr.Radio(SEXES, value=now.sex or "", label="Sex")
  with gr.Group():
    fields["statements"] = statements(
      target.statements, "What the twins shall show"
    )
    with gr.Row():
      fields["heart_rate"] = number(
        _as_text(target.heart_rate), label="Heart rate asked for (bpm)"
      )
      fields["age"] = number(
        _as_text(config.target.age),
        label="Age asked for (years)",
        placeholder="the same",
      )
  with gr.Accordion("How many, and how", open=False):
    with gr.Row():
      fields["num_samples"] = whole(
        config.num_samples, label=f"Twins (1 to {MAX_SAMPLES})"
      )
      fields["seed"] = whole(config.seed, label="Seed")
      fields["steps"] = whole(sampling.steps, label="Steps")
    for name, label in (
      ("statement_guidance", "Guidance by the statements"),
      ("person_guidance", "Guidance by the person"),
    ):
      fields[name] = _guidance(
        label, getattr(own, name), session.reason_against(name)
      )
    fields["consistent_leads"] = gr.Checkbox(
      sampling.consistent_leads, label="Make the limb leads agree exactly"
    )
    reads_beats = session.twin.networks.reads_beats
    fields["beats"] = gr.Textbox(
      config.beats or "",
      label="Beats (seconds)",
      placeholder="drawn",
      info="0.4 1.2 2.0 pvc@2.6 4.2 – or pvc@4.2 alone, to put a PVC into a "
      "drawn rhythm; also pac@, paced@"
      if reads_beats
      else "Not possible: this twin is told of no beats.",
      max_lines=1,
      interactive=reads_beats,
    )
  fields |= said
  assert tuple(fields) == Form._fields, tuple(fields)
  return fields


def _file_controls(number):
  """What a file of plain numbers does not say of itself."""
  with gr.Accordion("A .npy, .mat or .csv without rate or unit", open=False):
    with gr.Row():
      rate = number("", label="Its sampling rate (Hz, Enter: look)")
      unit = gr.Dropdown(
        [("said by the file", ""), "mV", "uV", "V"],
        value="",
        label="Its unit",
        min_width=90,
      )
    leads = number(
      "",
      label="Its leads, in the order of columns",
      placeholder=" ".join(LEADS),
    )
  return {"sampling_rate": rate, "leads": leads, "unit": unit}


def _edit_controls(session):
  gr.Markdown(
    "The same noise, with one statement added or re-weighted, or with all "
    "statements swapped for as many others."
  )
  with gr.Row():
    kind = gr.Radio(EDITS, value=EDITS[0], label="Edit", min_width=240)
    names = _statements(session, [], "Statement", min_width=240)
  with gr.Row():
    weight = gr.Slider(
      -2, 5, 1, step=0.1, label="Weight of its attention; 1 in a swap"
    )
    threshold = gr.Slider(
      0, 1, 1, step=0.01, label="Threshold: share of the steps, from the end"
    )
    attention = gr.Radio(
      EDIT_ATTENTION,
      value=EDIT_ATTENTION[0],
      label="Attention: the edit's own, or the source's",
      min_width=240,
    )
  return [kind, names, weight, threshold, attention]


def _statements(session, value, label, **options):
  """A choice of statements; others may be typed, and the twin warns of them."""
  return gr.Dropdown(
    list(dict.fromkeys([*session.twin.statements, *value])),
    value=list(value),
    multiselect=True,
    allow_custom_value=True,
    label=label,
    **options,
  )


def _guidance(label, value, reason):
  return gr.Slider(
    0,
    5,
    1 if reason else value,
    step=0.1,
    label=label,
    info=f"Not possible: {reason}."
    if reason
    else "1: as trained; more: closer",
    interactive=not reason,
  )


def _reference_tab(session):
  with tempfile.TemporaryDirectory() as folder:
    info = session.show_reference(None, None, folder)
    return [
      _picture("The reference", info.picture),
      _text("Found in it", info.text),
    ]


def _text(label, value):
  # A text box shows what users typed as it is; Markdown would interpret it.
  return gr.Textbox(value, label=label, lines=1, max_lines=24)


def _picture(alt_text, value=None):
  return gr.Image(
    value,
    type="filepath",
    interactive=False,
    show_label=False,
    buttons=["download", "fullscreen"],
    alt_text=alt_text,
    elem_classes="sheet",
  )


def _gallery(label):
  return gr.Gallery(
    label=label,
    preview=True,
    object_fit="contain",
    height=720,
    interactive=False,
    buttons=["download", "fullscreen"],
    elem_classes="sheets",
  )


def _download():
  return gr.DownloadButton("Download (zip)", interactive=False)


def _respond(action: Callable, show: Callable, failed: Callable) -> Callable:
  """The listener of an action: errors in words, files gone when shown.

  Args:
    action: function of (folder, *values) that returns a response.
    show: function of the response that returns what the outputs show.
    failed: function of an error in words that returns what they show instead.
  """

  def respond(*values):
    with tempfile.TemporaryDirectory() as folder:
      try:
        shown = show(action(folder, *values))
      except (ValueError, OSError) as error:
        text = " ".join(str(error).split())[:LONGEST]
      except Exception:
        traceback.print_exc()
        text = "this was not foreseen; the terminal of the server says more"
      else:
        # Gradio copies the files before it comes back for more.
        yield shown
        return
    # Shown as HTML, and may hold what a user typed.
    gr.Warning(html.escape(text), title="Not done")
    yield failed(f"Not done: {text}")

  return respond


def _show(response: Response) -> list:
  """A response's parts, those alone that its tab has."""
  parts = [response.text]
  if response.archive is not None:
    name = pathlib.Path(response.archive).name
    parts.append(
      gr.DownloadButton(f"Download {name}", response.archive, interactive=True)
    )
  if response.picture is not None:
    parts.append(response.picture)
  if response.sheets:
    parts.append(gr.Gallery(response.sheets, selected_index=0))
  if response.script is not None:
    parts.append(response.script)
  return parts


def _show_info(info: ReferenceInfo) -> list:
  return [
    info.picture,
    info.text,
    info.statements,
    _as_text(info.heart_rate),
    _as_text(info.age),
    info.sex or "",
  ]


def _as_text(number):
  return "" if number is None else f"{number:g}"
