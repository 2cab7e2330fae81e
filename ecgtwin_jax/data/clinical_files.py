"""Recordings as devices and hospitals keep them: EDF, DICOM, XML, SCP-ECG.

Of who was recorded, when and where nothing is taken over but age and sex. The
libraries are the extra `formats`, imported where a file needs them.
"""

import contextlib
import importlib
import pathlib
import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ecgtwin_jax.data.errors import RecordingError, find_window
from ecgtwin_jax.data.leads import LEADS, lead_position
from ecgtwin_jax.data.wfdb_record import first_line

SUFFIXES = (".edf", ".bdf", ".dcm", ".dicom", ".xml", ".scp", ".ecg")
STEP = 1e-3  # mV per step of the files we write
PEAK = 32.767  # mV that 16 bits of such steps hold
# Formats that ecgdatakit reads and that were tried here.
_KIT_FORMATS = ("HL7 aECG", "GE MUSE XML", "Philips Sierra XML", "SCP-ECG")
# "ECG I", "Lead V1", "Lead I (Einthoven)", "EKG aVR-Ref", "MDC_ECG_LEAD_V1".
_LEAD_NAME = re.compile(
  r"(?:(?:ecg|ekg|lead|mdc_ecg_lead)[\s_:-]*)*"
  r"(i{1,3}|av[rlf]|v[1-6])(?![a-z0-9]).*",
  re.IGNORECASE,
)
# Codes of leads in SCP-ECG, and in DICOM's tables of 1998 and of today.
_CODED = {1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF"}
_CODED |= {2 + number: f"V{number}" for number in range(1, 7)}
_CODE = re.compile(r"(?:5\.6\.3-9-|2:|MDC 2:)(\d+)")
_ECG_STORAGE = "1.2.840.10008.5.1.4.1.1.9.1."  # 1 of 12 leads, 3 ambulatory
_NO_DATE, _NO_TIME = "19000101", "000000"  # where DICOM insists on one


def name_format(path: pathlib.Path) -> str | None:
  """The format of a file by its first bytes: "DICOM", "EDF", "XML", "SCP-ECG".

  None: another one.
  """
  with path.open("rb") as file:
    head = file.read(512)
  if head[128:132] == b"DICM":
    return "DICOM"
  if head[:8] in (b"0       ", b"\xffBIOSEMI"):
    return "EDF"
  if b"SCPECG" in head[:64] or (path.suffix.lower() == ".scp" and head):
    return "SCP-ECG"
  # A byte order mark, and UTF-16, may stand before and between.
  if (
    head.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xfe\xff \r\n\t")[:1] == b"<"
  ):
    return "XML"
  return None


def read_clinical(
  path: pathlib.Path, start: float | int, duration: float | int | None
) -> tuple:
  """Reads an EDF, DICOM, HL7 aECG, GE MUSE, Philips or SCP-ECG file.

  Returns:
    Samples by leads, sampling rate, names, units, and lines with age and sex.

  Raises:
    RecordingError: the format is unknown, its library is not installed, or the
      file is damaged or holds no ECG.
  """
  form = name_format(path)
  readers = {"DICOM": _read_dicom, "EDF": _read_edf}
  read = readers.get(form, _read_kit)
  if form is None:
    raise RecordingError(
      "unreadable",
      "it is none of the formats that are read: WFDB, CSV, .npz, .npy, .mat,"
      " EDF, DICOM, HL7 aECG, GE MUSE XML, Philips XML, SCP-ECG",
    )
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      signal, rate, names, units, facts = read(path)
    window = slice(*find_window(len(signal), rate, start, duration))
  except (RecordingError, OSError):
    raise
  # Bad files make the libraries raise anything.
  except Exception as error:
    raise RecordingError(
      "unreadable",
      f"the {form} file cannot be read ({first_line(error)[:200]}): get a fresh"
      " copy of it",
    ) from None
  return signal[window], rate, names, units, facts


def need(module: str, form: str) -> Any:
  """A module of the extra `formats`.

  Raises:
    RecordingError: it is not installed.
  """
  try:
    return importlib.import_module(module)
  except ImportError:
    raise RecordingError(
      "unreadable", f"{form} needs pip install 'ecgtwin-jax[formats]'"
    ) from None


def _find_leads(names: list[str]) -> dict[int, str]:
  """{place: lead} of the names that are those of leads."""
  leads = {}
  for place, name in enumerate(names):
    match = _LEAD_NAME.fullmatch(name.strip())
    if match and match[1] not in leads.values():
      leads[place] = LEADS[lead_position(match[1])]
  if not leads:
    raise RecordingError(
      "lead",
      f"none of its signals ({', '.join(names)[:200]}) is a lead of an ECG",
    )
  return leads


def _one_rate(rates):
  if len(set(rates)) > 1:
    raise RecordingError(
      "unreadable",
      f"its leads have several sampling rates: {sorted(set(rates))}",
    )
  return float(rates[0])


def _facts(age, sex) -> tuple[str, ...]:
  """Lines as in the header of a WFDB record."""
  lines = []
  with contextlib.suppress(TypeError, ValueError):
    if 0 <= float(age) <= 120:
      lines.append(f"age: {float(age):g}")
  if str(sex).upper()[:1] in ("F", "M"):
    lines.append(f"sex: {str(sex).upper()[0]}")
  return tuple(lines)


def _read_edf(path):
  edfio = need("edfio", "EDF")
  bdf = path.read_bytes()[:1] == b"\xff"
  read = edfio.read_bdf if bdf else edfio.read_edf
  edf = read(path, header_encoding="latin-1")
  if str(edf.reserved)[4:5] == "D":
    raise RecordingError("unreadable", "EDF+ with gaps (EDF+D) is not read")
  leads = _find_leads([signal.label for signal in edf.signals])
  signals = [edf.signals[place] for place in leads]
  rate = _one_rate([signal.sampling_frequency for signal in signals])
  sex = None
  with contextlib.suppress(Exception):  # plain EDF has free text there
    sex = edf.patient.sex
  lines = [note.text for note in edf.annotations if note.onset == 0]
  return (
    np.stack([signal.data for signal in signals], axis=1),
    rate,
    list(leads.values()),
    [signal.physical_dimension for signal in signals],
    (*lines, *_facts(None, sex)),
  )


def _read_dicom(path):
  need("pydicom", "DICOM")
  from pydicom import dcmread
  from pydicom.filereader import read_file_meta_info

  syntax = read_file_meta_info(path).TransferSyntaxUID
  if syntax.is_deflated:  # a small file could unpack to a huge one
    raise RecordingError("unreadable", f"{syntax.name} is not read")
  dataset = dcmread(path)
  groups = list(dataset.get("WaveformSequence", []))
  if not groups:
    kind = dataset.SOPClassUID.name
    raise RecordingError(
      "lead", f"the DICOM object is a {kind} and holds no waveform"
    )
  named = [_dicom_names(group) for group in groups]
  found = [
    {name for name in names if lead_position(name) is not None}
    for names in named
  ]
  # Of rhythm and median beat, or of strips, the one with most leads and most
  # samples; strips of single leads in groups of their own are put together.
  best = max(
    range(len(groups)),
    key=lambda i: (len(found[i]), groups[i].NumberOfWaveformSamples),
  )
  chosen = [
    i
    for i, group in enumerate(groups)
    if i == best
    or (
      found[i].isdisjoint(found[best])
      and _dicom_shape(group) == _dicom_shape(groups[best])
    )
  ]
  columns, names, units = [], [], []
  for i in chosen:
    columns.append(dataset.waveform_array(i))
    names += named[i]
    units += [_dicom_unit(x) for x in groups[i].ChannelDefinitionSequence]
  leads = _find_leads(names)
  signal = np.concatenate(columns, axis=1)[:, list(leads)]
  age = re.fullmatch(r"(\d+)Y", str(dataset.get("PatientAge", "")))
  notes = [
    str(note.UnformattedTextValue)
    for note in dataset.get("WaveformAnnotationSequence", [])
    if "UnformattedTextValue" in note
  ]
  return (
    signal,
    float(groups[best].SamplingFrequency),
    list(leads.values()),
    [units[place] for place in leads],
    (*notes, *_facts(age and age[1], dataset.get("PatientSex", ""))),
  )


def _dicom_shape(group):
  return (
    group.NumberOfWaveformSamples,
    float(group.SamplingFrequency),
    float(group.get("MultiplexGroupTimeOffset", 0) or 0),
  )


def _dicom_names(group):
  """Leads of a group's channels, by code or else by what is written there."""
  names = []
  for channel in group.ChannelDefinitionSequence:
    source = channel.get("ChannelSourceSequence") or [{}]
    code = _CODE.fullmatch(str(source[0].get("CodeValue", "")))
    written = source[0].get("CodeMeaning") or channel.get("ChannelLabel", "")
    match = _LEAD_NAME.fullmatch(str(written).strip())
    name = _CODED.get(int(code[1])) if code else None
    names.append(name or (match[1] if match else str(written)))
  return names


def _dicom_unit(channel):
  units = channel.get("ChannelSensitivityUnitsSequence")
  return str(units[0].CodeValue) if units else "not stated"


def _read_kit(path):
  need("ecgdatakit", "XML and SCP-ECG")
  from ecgdatakit.parsing import FileParser

  detected = FileParser.detect_format(path)
  form = detected and detected["name"]
  if form not in _KIT_FORMATS:
    what = f"{form} is" if form else "this kind of file is"
    raise RecordingError(
      "unreadable", f"{what} not read, only {', '.join(_KIT_FORMATS)}"
    )
  record = FileParser.parse(path)
  if record.raw_metadata.get("checksum_valid") is False:
    raise RecordingError(
      "checksum",
      "its samples do not match their checksum: get a fresh copy of the file",
    )
  leads = _find_leads([lead.label for lead in record.leads])
  chosen = [record.leads[place] for place in leads]
  rate = _one_rate([lead.sampling_rate for lead in chosen])
  lengths = {len(lead.samples) for lead in chosen}
  if len(lengths) > 1:
    raise RecordingError(
      "unreadable", f"its leads are of several lengths: {sorted(lengths)}"
    )
  return (
    np.stack([lead.samples for lead in chosen], axis=1),
    rate,
    list(leads.values()),
    ["not stated" if lead.is_raw else lead.units for lead in chosen],
    _facts(record.patient.age, record.patient.sex),
  )


def write_edf(ecg: Any, path: pathlib.Path, comments: Sequence[str]) -> None:
  """Writes EDF+ in steps of 1 uV; the comments are annotations at 0 s."""
  edfio = need("edfio", "EDF")
  _check_peak(ecg)
  steps = np.rint(ecg.signal.astype(np.float64) / STEP)
  limit = round(PEAK / STEP)
  signals = [
    edfio.EdfSignal(
      steps[:, i],
      ecg.sampling_rate,
      label=f"ECG {lead}",
      physical_dimension="uV",
      physical_range=(-limit, limit),
      digital_range=(-limit, limit),
    )
    for i, lead in enumerate(LEADS)
  ]
  notes = [edfio.EdfAnnotation(0, None, line) for line in comments]
  edfio.Edf(
    signals,
    annotations=notes or None,
    data_record_duration=len(steps) / ecg.sampling_rate,
  ).write(path)


def write_dicom(ecg: Any, path: pathlib.Path, comments: Sequence[str]) -> None:
  """Writes a DICOM ECG in steps of 1 uV; the comments are its annotations.

  A 12-lead ECG where the standard allows it, 200 to 1000 Hz and at most 16384
  samples; else an ambulatory one, 50 to 1000 Hz. Nobody is named in it.
  """
  need("pydicom", "DICOM")
  from pydicom.dataset import Dataset, FileMetaDataset
  from pydicom.uid import ExplicitVRLittleEndian, generate_uid

  _check_peak(ecg)
  rate, count = ecg.sampling_rate, len(ecg.signal)
  if not 50 <= rate <= 1000:
    raise ValueError(
      f"sampling_rate={rate:g} must be in 50..1000 Hz in a DICOM ECG: resample"
    )
  samples = np.rint(ecg.signal.astype(np.float64) / STEP).astype("<i2")
  standard = rate >= 200 and count <= 16384
  seed = [samples.tobytes().hex(), f"{rate}", *comments]
  group = Dataset()
  group.MultiplexGroupTimeOffset = 0
  group.WaveformOriginality = "ORIGINAL"
  group.NumberOfWaveformChannels = len(LEADS)
  group.NumberOfWaveformSamples = count
  group.SamplingFrequency = f"{rate:.10g}"
  group.MultiplexGroupLabel = "RHYTHM"
  group.ChannelDefinitionSequence = [_dicom_channel(lead) for lead in LEADS]
  group.WaveformBitsAllocated = 16
  group.WaveformSampleInterpretation = "SS"
  group.WaveformData = samples.tobytes()
  dataset = Dataset()
  dataset.SOPClassUID = _ECG_STORAGE + ("1" if standard else "3")
  for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
    setattr(dataset, name, generate_uid(entropy_srcs=[*seed, name]))
  for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex"):
    setattr(dataset, name, "")
  dataset.PatientIdentityRemoved = "YES"
  dataset.DeidentificationMethod = "signal, age and sex alone were kept"
  for name in ("StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
    setattr(dataset, name, "")
  dataset.ReferringPhysicianName = ""
  dataset.Manufacturer = "ecgtwin_jax"
  dataset.Modality = "ECG"
  dataset.SeriesNumber = dataset.InstanceNumber = 1
  dataset.ContentDate, dataset.ContentTime = _NO_DATE, _NO_TIME
  dataset.AcquisitionDateTime = _NO_DATE + _NO_TIME
  dataset.AcquisitionContextSequence = []
  dataset.WaveformSequence = [group]
  dataset.WaveformAnnotationSequence = [_dicom_note(line) for line in comments]
  if not comments:
    del dataset.WaveformAnnotationSequence
  dataset.SpecificCharacterSet = "ISO_IR 192"
  dataset.file_meta = FileMetaDataset()
  dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
  dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
  dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
  dataset.save_as(path, enforce_file_format=True)


def _dicom_channel(lead):
  from pydicom.dataset import Dataset

  number = next(code for code, name in _CODED.items() if name == lead)
  channel = Dataset()
  channel.ChannelLabel = lead
  channel.ChannelSourceSequence = [
    _dicom_code(f"2:{number}", "MDC", "20040618", f"Lead {lead}")
  ]
  channel.ChannelSensitivity = f"{1e3 * STEP:g}"
  channel.ChannelSensitivityUnitsSequence = [
    _dicom_code("uV", "UCUM", "1.4", "microvolt")
  ]
  channel.ChannelSensitivityCorrectionFactor = 1
  channel.ChannelBaseline = 0
  channel.ChannelSampleSkew = 0
  channel.WaveformBitsStored = 16
  return channel


def _dicom_code(value, scheme, version, meaning):
  from pydicom.dataset import Dataset

  code = Dataset()
  code.CodeValue = value
  code.CodingSchemeDesignator = scheme
  code.CodingSchemeVersion = version
  code.CodeMeaning = meaning
  return code


def _dicom_note(line):
  from pydicom.dataset import Dataset

  note = Dataset()
  note.AnnotationGroupNumber = 1
  note.ReferencedWaveformChannels = [1, 0]
  note.UnformattedTextValue = line[:1024]
  return note


def _check_peak(ecg):
  peak = float(np.abs(ecg.signal).max())
  if peak > PEAK:
    raise ValueError(f"{ecg.record}: {peak=:.4g} mV must be below {PEAK} mV")
