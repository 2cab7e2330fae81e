"""Files of every format that is read, and of those that are refused."""

import copy
import pathlib

import numpy as np
import scipy.io
from pydicom import dcmread
from pydicom.data import get_testdata_file

import ecgtwin_jax as et
from ecgtwin_jax.data.ecg import quiet_wfdb
from ecgtwin_jax.data.leads import LEADS
from helpers import clinical_samples as samples

BACKWARDS = LEADS[::-1]


GIVEN = dict(sampling_rate=500, leads=BACKWARDS, unit="uV")


def write_challenge(path, signal):
  """As of the PhysioNet Challenges: a .mat, and date and time in the header."""
  digital = np.rint(signal * 1000).astype(np.int16)
  scipy.io.savemat(
    path.with_suffix(".mat"), {"val": digital.T}, format="4", oned_as="row"
  )
  size = path.with_suffix(".mat").stat().st_size - digital.nbytes
  name = path.stem
  lines = [f"{name} 12 500 5000 05-Feb-2020 11:39:16"]
  lines += [f"{name}.mat 16+{size} 1000/mV 16 0 0 0 0 {x}" for x in LEADS]
  lines += ["#Age: 63", "#Sex: Male", "#Name: John Smith, seen by Dr. Brown"]
  path.write_text("\n".join(lines) + "\n")


def write_wfdb(path, signal, fmt="16"):
  """With Frank leads in an .xyz file, as PTB has them."""
  with quiet_wfdb() as wfdb:
    wfdb.wrsamp(
      path.stem,
      fs=500,
      units=["mV"] * 12,
      sig_name=[x.lower() for x in LEADS],
      p_signal=signal,
      fmt=[fmt] * 12,
      adc_gain=[1000.0] * 12,
      baseline=[0] * 12,
      write_dir=str(path.parent),
    )
  lines = path.read_text().splitlines()
  lines[0] = lines[0].replace(" 12 ", " 13 ")
  lines.insert(13, f"{path.stem}.xyz 16 1000/mV 16 0 0 0 0 vx")
  lines += ["# age: 63", "# sex: male", "# Name: John Smith, 12.05.1957"]
  path.write_text("\n".join(lines) + "\n")
  np.zeros(5000, "<i2").tofile(path.with_suffix(".xyz"))


def write_frame(path, signal, unit=1.0, **options):
  frame = et.ECG(signal, 500).to_frame().iloc[:, ::-1] * unit
  frame.reset_index(drop=True).to_csv(path, **options)


def write_general_dicom(path, signal):
  """Three groups of four leads without codes, as general ECGs may have them."""
  et.ECG(signal, 500).write(path)
  dataset = dcmread(path)
  (whole,) = dataset.WaveformSequence
  groups = []
  for first in range(0, 12, 4):
    group = copy.deepcopy(whole)
    part = samples.steps_of(signal)[:, first : first + 4]
    channels = list(group.ChannelDefinitionSequence)[first : first + 4]
    for channel in channels:
      del channel.ChannelSourceSequence[0].CodeValue
      channel.ChannelSensitivity = 5
    group.ChannelDefinitionSequence = channels
    group.NumberOfWaveformChannels = 4
    group.WaveformData = np.ascontiguousarray(part).tobytes()
    groups.append(group)
  dataset.WaveformSequence = groups
  dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.9.1.2"
  dataset.PatientName, dataset.PatientID = "Smith^John^Q", "4711"
  dataset.PatientBirthDate, dataset.PatientAge = "19570512", "063Y"
  dataset.PatientSex = "M"
  dataset.ReferringPhysicianName = "Dr. Brown"
  dataset.save_as(path)


READ = {
  "challenge.hea": (write_challenge, {}),
  "frank.hea": (write_wfdb, {}),
  "flac.hea": (lambda p, x: write_wfdb(p, x, "32"), {}),
  "own.csv": (lambda p, x: et.ECG(x, 500).write(p), {}),
  "own.npz": (lambda p, x: et.ECG(x, 500).write(p), {}),
  "own.edf": (lambda p, x: et.ECG(x, 500).write(p), {}),
  "own.dcm": (lambda p, x: et.ECG(x, 500).write(p), {}),
  "pandas.csv": (write_frame, {"sampling_rate": 500}),
  "microvolt.csv": (
    lambda p, x: write_frame(p, x, 1e3, index=False),
    {"sampling_rate": 500, "unit": "uV"},
  ),
  "time.csv": (lambda p, x: et.ECG(x, 500).to_frame().to_csv(p), {}),
  "array.npy": (lambda p, x: np.save(p, x[:, ::-1] * 1e3), GIVEN),
  "rows.npy": (lambda p, x: np.save(p, x.T[::-1] * 1e3), GIVEN),
  "matlab.mat": (
    lambda p, x: scipy.io.savemat(p, {"val": x.T[::-1] * 1e3}),
    GIVEN,
  ),
  "pyedflib.edf": (samples.write_pyedflib, {}),
  "upper.EDF": (samples.write_pyedflib, {}),
  "general.dcm": (write_general_dicom, {}),
  "no_suffix": (write_general_dicom, {}),
  "hl7.xml": (samples.write_aecg, {}),
  "muse.xml": (samples.write_muse, {}),
  "philips.xml": (samples.write_philips, {}),
  "schiller.scp": (samples.write_scp, {}),
}


def damaged(write, cut=None, swap=None):
  def damage(path, signal):
    write(path, signal)
    content = path.read_bytes()
    path.write_bytes(content.replace(*swap) if swap else content[:cut])

  return damage


def image(path, signal):
  path.write_bytes(pathlib.Path(get_testdata_file("CT_small.dcm")).read_bytes())


def pickled(path, signal):
  np.save(path, np.array([{"a": 1}], object), allow_pickle=True)


BOMB = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbb">
<!ENTITY c "&b;&b;&b;">]><RestingECG>&c;</RestingECG>"""


REFUSED = {
  "cut.edf": (
    damaged(samples.write_pyedflib, 300),
    {},
    "the EDF file cannot be read",
  ),
  "eeg.edf": (
    lambda p, x: samples.write_pyedflib(p, x, [f"EEG F{i}" for i in range(12)]),
    {},
    r"none of its signals \(EEG F0.*is a lead",
  ),
  "gaps.edf": (
    damaged(samples.write_pyedflib, swap=(b"EDF+C", b"EDF+D")),
    {},
    r"EDF\+ with gaps",
  ),
  "image.dcm": (image, {}, "is a CT Image Storage and holds no waveform"),
  "cut.dcm": (
    damaged(write_general_dicom, 9000),
    {},
    "the DICOM file cannot be read",
  ),
  "empty.dcm": (lambda p, x: p.touch(), {}, "none of the formats"),
  "crc.xml": (
    lambda p, x: samples.write_muse(p, x, checksum=1),
    {},
    "do not match their checksum",
  ),
  "unit.xml": (
    lambda p, x: samples.write_muse(p, x, unit="FURLONGS"),
    {},
    "unit 'not stated' must be V, mV or uV",
  ),
  "bomb.xml": (lambda p, x: p.write_text(BOMB), {}, "XML file cannot be read"),
  "other.xml": (
    lambda p, x: p.write_text("<html></html>"),
    {},
    "this kind of file is not read, only HL7 aECG",
  ),
  "mortara.xml": (
    lambda p, x: samples.write_philips(p, x, "MortaraECG"),
    {},
    "MortaraECG 1.03 are unsupported",
  ),
  "cut.scp": (damaged(samples.write_scp, 5000), {}, "SCP-ECG file cannot be"),
  "report.pdf": (
    lambda p, x: p.write_bytes(b"%PDF-1.4"),
    {},
    "none of the formats that are read: WFDB",
  ),
  "bare.npy": (
    lambda p, x: np.save(p, x),
    {},
    "give read_ecg sampling_rate=500, leads=.*LEADS, unit='mV'",
  ),
  "half.npy": (
    lambda p, x: np.save(p, x),
    {"sampling_rate": 500, "unit": "mV"},
    r"give read_ecg leads=ecgtwin_jax\.LEADS$",
  ),
  "pickle.npy": (pickled, GIVEN, r"not an \.npy file"),
  "struct.mat": (
    lambda p, x: scipy.io.savemat(p, {"mine": x}),
    GIVEN,
    r"of its arrays \(mine\) exactly one must be called",
  ),
  "new.mat": (
    lambda p, x: p.write_bytes(
      b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\0" * 400
    ),
    GIVEN,
    "MATLAB's HDF5 form is not read",
  ),
  "rate.csv": (write_frame, {}, "or read_ecg's sampling_rate="),
  "unit.csv": (
    lambda p, x: write_frame(p, x, 1e3),
    {"sampling_rate": 500},
    "it looks like uV: give unit='uV'|is its unit right",
  ),
  "said.edf": (
    samples.write_pyedflib,
    {"sampling_rate": 250},
    "are said by the file itself",
  ),
}
