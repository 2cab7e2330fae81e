"""Recordings in the formats of others: read as they are, or refused."""

import re
import sys

import jaxtyping
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

import ecgtwin_jax as et
from ecgtwin_jax.app.uploads import read_upload
from ecgtwin_jax.data.ecg import EXAMPLE_RECORD, SYNTHETIC, quiet_wfdb
from ecgtwin_jax.data.errors import RecordingError
from ecgtwin_jax.data.leads import LEADS
from helpers import clinical_samples as samples
from helpers.format_files import (
  BACKWARDS,
  READ,
  REFUSED,
  write_general_dicom,
  write_wfdb,
)


@pytest.fixture(scope="module")
def signal():
  """10 s of the bundled recording at 500 Hz, in whole steps of 5 uV."""
  ecg = et.example_ecg().resample(5000)
  # Of 10 uV, so that the derived limb leads have whole steps, too.
  signal = np.rint(ecg.signal[:, [0, 1, *range(6, 12)]] * 100) / 100
  return et.ECG.from_array(signal, 500, samples.EIGHT).signal.astype(np.float64)


@pytest.mark.parametrize("name", READ)
def test_what_is_read_is_what_was_written(tmp_path, signal, name):
  write, given = READ[name]
  path = tmp_path / name
  if name == "no_suffix":
    write(tmp_path / "a.dcm", signal)
    (tmp_path / "a.dcm").rename(path)
  else:
    write(path, signal)
  ecg = et.read_ecg(path, **given)
  assert ecg.sampling_rate == 500 and ecg.record == path.stem
  np.testing.assert_allclose(ecg.signal, signal, rtol=0, atol=1e-6)
  named = not name.startswith(("own", "pandas", "micro", "time", "flac"))
  if named and not given:
    assert et.fill_condition(ecg, "Sinus rhythm", 60).sex == "M"
  # Nobody is named in what is written of it.
  for suffix in (".hea", ".csv", ".npz", ".edf", ".dcm"):
    copy = tmp_path / "copies" / f"copy{suffix}"
    ecg.write(copy)
    content = copy.read_bytes()
    for secret in samples.SECRETS:
      assert secret.encode() not in content, (suffix, secret)
    back = et.read_ecg(copy)
    np.testing.assert_allclose(back.signal, ecg.signal, rtol=0, atol=1e-6)
    assert "sex: M" in back.comments or not named or given


@pytest.mark.parametrize("suffix", [".hea", ".edf", ".dcm"])
@pytest.mark.parametrize("rate,count", [(102.4, 1024), (500, 5000), (250, 911)])
def test_16_bits_are_within_half_a_step(tmp_path, suffix, rate, count):
  rng = np.random.default_rng(1)
  ecg = et.ECG(rng.normal(0, 3, (count, 12)), rate, "a", ["age: 9", "größer"])
  path = tmp_path / f"a{suffix}"
  ecg.write(path)
  back = et.read_ecg(path, duration=None)
  np.testing.assert_allclose(back.signal, ecg.signal, rtol=0, atol=0.501e-3)
  assert back.sampling_rate == pytest.approx(rate, rel=1e-9)
  assert back.signal.shape == ecg.signal.shape
  # Who makes an ECG decides on its comments.
  assert {"age: 9", "größer"} <= set(back.comments)


def test_a_twin_stays_synthetic_whatever_it_is_written_as(tmp_path):
  made = ["statements: Sinus rhythm", "sample: 0"]
  ecg = et.ECG(et.example_ecg().signal, 1000, "twin_0", [SYNTHETIC, *made])
  for suffix in (".edf", ".dcm", ".hea", ".csv", ".npz"):
    ecg.write(tmp_path / f"twin{suffix}")
    ecg = et.read_ecg(tmp_path / f"twin{suffix}")
    assert {SYNTHETIC, *made} <= set(ecg.comments), suffix


def test_names_of_no_leads_are_told_in_one_line(tmp_path, signal):
  path = tmp_path / "a.edf"
  samples.write_pyedflib(path, signal)
  data = path.read_bytes()
  count = int(data[252:256])
  names = b"x\ny\x1b            " * count
  path.write_bytes(data[:256] + names + data[256 + len(names) :])
  with pytest.raises(ValueError, match=r"signals \(x\\ny\\x1b, ") as caught:
    et.read_ecg(path)
  assert str(caught.value).isprintable()


def test_dicom_is_a_12_lead_ecg_where_the_standard_allows_it(tmp_path, signal):
  path = tmp_path / "a.dcm"
  et.ECG(signal, 500).write(path)
  dataset = dcmread(path)
  assert dataset.SOPClassUID.name == "12-lead ECG Waveform Storage"
  assert dataset.PatientName == "" and dataset.PatientID == ""
  et.ECG(signal, 102.4).write(path)
  kind = dcmread(path).SOPClassUID.name
  assert kind == "Ambulatory ECG Waveform Storage"
  with pytest.raises(
    ValueError, match=r"sampling_rate=2000 must be in 50\.\.1000"
  ):
    et.ECG(signal, 2000).write(path)
  for suffix in (".edf", ".dcm"):
    with pytest.raises(ValueError, match=r"must be below 32\.767 mV"):
      et.ECG(signal * 100, 500).write(tmp_path / f"a{suffix}")


def test_a_dicom_of_a_device_is_its_rhythm_and_not_its_median_beat():
  ecg = et.read_ecg(get_testdata_file("waveform_ecg.dcm"))
  assert len(ecg.signal) == 10000 and ecg.sampling_rate == 1000
  assert 55 < et.detect_heart_rate(ecg, method="energy") < 65


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_in_words(tmp_path, signal, name):
  write, given, message = REFUSED[name]
  path = tmp_path / name
  write(path, signal)
  with pytest.raises(ValueError, match=message) as caught:
    et.read_ecg(path, **given)
  text = str(caught.value)
  assert str(path) in text and "\n" not in text and ".hea" not in text


@pytest.mark.parametrize(
  "name,module,form",
  [
    ("a.edf", "edfio", "EDF"),
    ("a.dcm", "pydicom", "DICOM"),
    ("a.xml", "ecgdatakit", "XML and SCP-ECG"),
  ],
)
def test_a_missing_library_is_named_with_its_command(
  tmp_path, signal, monkeypatch, name, module, form
):
  write = {
    "a.edf": samples.write_pyedflib,
    "a.dcm": write_general_dicom,
    "a.xml": samples.write_muse,
  }[name]
  path = tmp_path / name
  write(path, signal)
  monkeypatch.setitem(sys.modules, module, None)
  message = f"{form} needs pip install 'ecgtwin-jax[formats]'"
  with pytest.raises(RecordingError, match=re.escape(message)):
    et.read_ecg(path)
  if name != "a.xml":
    with pytest.raises(ValueError, match=re.escape(message)):
      et.example_ecg().write(tmp_path / f"b{path.suffix}")


@pytest.mark.parametrize(
  "name", ["pyedflib.edf", "general.dcm", "muse.xml", "schiller.scp"]
)
def test_the_page_takes_one_file_of_a_device(tmp_path, signal, name):
  READ[name][0](tmp_path / name, signal)
  ecg = read_upload([str(tmp_path / name)])
  np.testing.assert_allclose(ecg.signal, signal, rtol=0, atol=1e-6)


def test_the_page_needs_no_file_of_other_signals(tmp_path, signal):
  write_wfdb(tmp_path / "a.hea", signal)
  files = [str(tmp_path / f"a{x}") for x in (".hea", ".dat", ".xyz")]
  for given in (files, files[:2]):
    ecg = read_upload(given)
    np.testing.assert_allclose(ecg.signal, signal, rtol=0, atol=1e-6)
  with pytest.raises(ValueError, match=r"names a\.dat: upload the header"):
    read_upload([files[0], files[2]])


def test_arrays_frames_and_records_go_there_and_back(signal):
  ecg = et.ECG.from_array(
    signal[:, ::-1] * 1e3, 500, leads=BACKWARDS, unit="uV", record="a"
  )
  np.testing.assert_allclose(ecg.signal, signal, rtol=0, atol=1e-6)
  assert repr(ecg) == "ECG(a, 10 s, 500 Hz)"
  frame = ecg.to_frame()
  assert list(frame.columns) == list(LEADS) and frame.index[1] == 0.002
  frame["Resp"] = 7e9
  mixed = frame[[*BACKWARDS[:5], "Resp", *BACKWARDS[5:]]].rename(
    columns=str.upper
  )
  back = et.ECG.from_frame(mixed, 500)
  np.testing.assert_array_equal(back.signal, ecg.signal)
  with quiet_wfdb() as wfdb:
    record = wfdb.rdrecord(EXAMPLE_RECORD)
    digital = wfdb.rdrecord(EXAMPLE_RECORD, physical=False)
  for given in (record, digital):
    read = et.ECG.from_wfdb(given)
    np.testing.assert_allclose(
      read.signal, et.example_ecg().signal, rtol=0, atol=1e-6
    )
  again = et.ECG.from_wfdb(read.to_wfdb())
  np.testing.assert_array_equal(again.signal, read.signal)
  assert set(again.comments) == {"age: 81", "sex: F"}


@pytest.mark.parametrize(
  "change,message",
  [
    (lambda x: x[:, ::-1], "the limb leads do not add up, 9.%.*in the order I"),
    (lambda x: x * 1e3, "above 30 mV .it looks like uV: give unit='uV'"),
    (lambda x: x * 1e-3, "below 0.01 mV .it looks like V: give unit='V'"),
    (lambda x: x * 0, "all leads are flat lines, as of zeros"),
    (lambda x: x * (np.arange(12) != 7), "lead V2 is a flat line"),
  ],
)
def test_an_ecg_of_other_leads_or_units_is_warned_of(signal, change, message):
  with pytest.warns(UserWarning, match=message):
    et.ECG(change(signal), 500)


@pytest.mark.filterwarnings("error:unlike an ECG")
def test_an_ecg_in_mv_is_not_warned_of(signal):
  et.ECG(signal, 500)
  et.ECG(signal + 3, 500)


@pytest.mark.parametrize(
  "change,given,message",
  [
    (lambda x: x * 1e3, {}, "is its unit right"),
    (lambda x: x * 1e-3, {}, "is a flat line.*looks like V"),
    (lambda x: x.T, {}, r"x of shape \(12, 5000\) must be \(samples, 12\)"),
    (lambda x: x[:, :11], {}, r"\(5000, 11\) must be \(samples, 12\)"),
    (lambda x: x[:, :2], {"leads": ["I", "V1"]}, "lead II, III.*missing"),
    (lambda x: x, {"unit": "furlong"}, "must be V, mV or uV"),
  ],
)
def test_arrays_that_are_refused(signal, change, given, message):
  with pytest.raises(ValueError, match=message):
    et.ECG.from_array(change(signal), 500, **given)


@pytest.mark.parametrize(
  "call,message",
  [
    (lambda x: et.ECG("a", 500), "signal=str must be an array of numbers"),
    (lambda x: et.ECG([["a"] * 12], 500), "signal=list must be an array"),
    (lambda x: et.ECG(x, "500"), "sampling_rate='500' is of type str"),
    (lambda x: et.ECG.from_array(x, None), "rate=None is of type NoneType"),
    (
      lambda x: et.ECG.from_array(x, 500, "I,II"),
      "leads='I,II' must be a list of names",
    ),
    (
      lambda x: et.ECG.from_frame(x, 500),
      "df=ndarray must be a pandas DataFra",
    ),
    (lambda x: et.ECG.from_wfdb(x), "record=ndarray must be a wfdb.Record"),
    (lambda x: et.read_ecg(x), "path=ndarray must be the path of a recording"),
    (
      lambda x: et.read_ecg("a", "5"),
      "start='5' is of type str, must be float",
    ),
  ],
)
def test_other_types_are_named(monkeypatch, signal, call, message):
  # As a user runs it, without the checks of the tests.
  monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
  with pytest.raises(TypeError, match=re.escape(message)):
    call(signal)
