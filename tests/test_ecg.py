"""The ECG: leads by name, units, rules, files and their faults."""

import re
import warnings

import jaxtyping
import numpy as np
import pytest

from ecgtwin_jax.constants import FROM_INDEPENDENT
from ecgtwin_jax.data import ecg as ecg_lib
from ecgtwin_jax.data.ecg import ECG, example_ecg, read_ecg
from ecgtwin_jax.data.leads import LEADS, order_leads

SHUFFLED = (8, 1, 11, 0, 5, 2, 9, 3, 10, 7, 4, 6)


def make_signal(samples=5000, seed=0):
  """Twelve leads that keep Einthoven's law, each its own, in mV."""
  rng = np.random.default_rng(seed)
  signal = rng.normal(size=(samples, 12)).cumsum(0)
  signal = (signal - signal.mean(0)) / np.ptp(signal, axis=0)
  i, ii = signal[:, 0], signal[:, 1]
  signal[:, 2:6] = np.stack([ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2], 1)
  return signal


def write_wfdb(folder, signal, rate=500, names=LEADS, units="mV", **options):
  count = signal.shape[1]
  options = {"fmt": ["16"] * count, "adc_gain": [2000.0] * count} | options
  with ecg_lib.quiet_wfdb() as wfdb:
    wfdb.wrsamp(
      "rec",
      fs=rate,
      units=[units] * count,
      sig_name=list(names),
      p_signal=signal,
      baseline=[0] * count,
      write_dir=str(folder),
      **options,
    )
  return folder / "rec"


def edit(path, *replacements):
  text = path.read_text()
  for old, new in replacements:
    assert old in text
    text = text.replace(old, new)
  path.write_bytes(text.encode("latin-1"))


def test_leads_are_found_by_name_in_any_order_and_case():
  signal = make_signal(997)
  names = [LEADS[i].swapcase() for i in SHUFFLED]
  extra = np.full((997, 1), 7e9)
  both = np.concatenate([extra, signal[:, SHUFFLED], extra], 1)
  ordered = order_leads(both, ["vx", *names, "Resp"], "mV")
  assert ordered.dtype == np.float32
  np.testing.assert_array_equal(ordered, signal.astype(np.float32))


def test_any_two_limb_leads_give_the_others():
  signal = make_signal(499)
  for first in range(6):
    for second in range(first):
      kept = [second, first, *range(6, 12)]
      ordered = order_leads(signal[:, kept], [LEADS[i] for i in kept])
      np.testing.assert_allclose(ordered, signal, atol=1e-6)


def test_measured_leads_are_kept_and_not_derived():
  signal = make_signal(499)
  signal[:, 2] *= -3  # breaks III = II - I
  np.testing.assert_array_equal(
    order_leads(signal, LEADS), signal.astype(np.float32)
  )


@pytest.mark.parametrize(
  "unit,factor",
  [
    ("V", 1e-3),
    ("volts", 1e-3),
    ("mV", 1),
    ("MV", 1),
    (" mv ", 1),
    ("millivolt", 1),
    ("uV", 1e3),
    ("\u00b5V", 1e3),
    ("\u03bcV", 1e3),
    ("microvolts", 1e3),
  ],
)
def test_units_become_millivolt(unit, factor):
  signal = make_signal(499)
  ordered = order_leads(signal * factor, LEADS, unit)
  np.testing.assert_allclose(ordered, signal, rtol=1e-6)


def test_units_may_differ_between_leads():
  signal = make_signal(499)
  raw = signal * ([1e3] * 6 + [1] * 6)
  ordered = order_leads(raw, LEADS, ["uV"] * 6 + ["mV"] * 6)
  np.testing.assert_allclose(ordered, signal, rtol=1e-6)


def spoil(lead, rows, value):
  signal = make_signal(1000)
  signal[rows, LEADS.index(lead)] = value
  return signal


@pytest.mark.parametrize(
  "signal,names,units,message",
  [
    (make_signal(9), LEADS, "furlong", "lead I: unit 'furlong' must be V, mV"),
    (make_signal(9)[:, :11], LEADS[:11], "mV", "lead V6 is missing"),
    (make_signal(9)[:, :2], ["I", "V1"], "mV", "lead II, III, aVR, .*missing"),
    (make_signal(9), ["I", *LEADS[:11]], "mV", "lead I is there twice"),
    (make_signal(9), LEADS[:11], "mV", "must equal"),
    (spoil("V2", slice(51), np.nan), LEADS, "mV", r"lead V2 is NaN in 5.1%"),
    (spoil("V2", slice(51), np.inf), LEADS, "mV", r"lead V2 is NaN in 5.1%"),
    (spoil("aVF", slice(None), 3.0), LEADS, "mV", "lead aVF is a flat line"),
    (spoil("V5", 77, 31.0), LEADS, "mV", "lead V5 has a range of .*unit right"),
    (make_signal(9) / 1e3, LEADS, "mV", "is a flat line"),
  ],
)
def test_a_broken_rule_names_the_lead(signal, names, units, message):
  with pytest.raises(ValueError, match=message):
    order_leads(signal, names, units)


def test_few_missing_samples_become_zero():
  signal = spoil("V2", slice(50), np.nan)
  ordered = order_leads(signal, LEADS)
  assert (ordered[:50, 7] == 0).all()
  np.testing.assert_allclose(ordered[50:], signal[50:], rtol=1e-6)


def test_a_lead_derived_from_a_missing_sample_is_missing_too():
  signal = spoil("I", 3, np.nan)
  kept = [0, 1, *range(6, 12)]
  ordered = order_leads(signal[:, kept], [LEADS[i] for i in kept])
  assert ordered[3, 2] == 0 and ordered[3, 0] == 0 and ordered[3, 1] != 0


def test_an_offset_is_not_a_fault():
  ordered = order_leads(make_signal(99) + 200.0, LEADS)
  assert ordered.mean() > 199


def test_the_example_is_a_real_recording():
  ecg = example_ecg()
  assert ecg.signal.shape == (10000, 12) and ecg.signal.dtype == np.float32
  assert ecg.sampling_rate == 1000 and ecg.duration == 10
  assert ecg.record == "s0010_re_10s"
  assert {"age: 81", "sex: female"} <= set(ecg.comments)
  i, ii, iii, avr = ecg.signal[:, :4].T
  np.testing.assert_allclose(iii, ii - i, atol=2e-3)
  np.testing.assert_allclose(avr, -(i + ii) / 2, atol=2e-3)
  assert ecg.signal[0, 0] == np.float32(-489 / 2000)  # from its header


def test_resample_keeps_the_seconds_and_a_slow_wave():
  time = np.arange(5000) / 500
  wave = np.sin(2 * np.pi * 3 * time)[:, None] * np.arange(1, 13)
  ecg = ECG(wave, 500.0, "a", ("b",)).resample()
  assert ecg.signal.shape == (1024, 12)
  assert ecg.sampling_rate == ecg_lib.MODEL_RATE
  assert (ecg.record, ecg.comments, ecg.duration) == ("a", ("b",), 10)
  expected = np.sin(2 * np.pi * 3 * np.arange(1024) / 102.4)
  np.testing.assert_allclose(ecg.signal[:, 10], 11 * expected, atol=1e-4)
  assert ecg.resample() is ecg


@pytest.mark.parametrize(
  "signal,rate,message",
  [
    (np.zeros((12, 11)), 500.0, "must be \\(samples, 12\\)"),
    (np.zeros((0, 12)), 500.0, "must be \\(samples, 12\\)"),
    (np.full((7, 12), np.nan), 500.0, "must be finite"),
    (np.zeros((7, 12)), 0.0, "must be positive"),
    (np.zeros((7, 12)), np.nan, "must be positive"),
  ],
)
def test_ecg_refuses(monkeypatch, signal, rate, message):
  # As a user runs it, without the shape checks of the tests.
  monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
  with pytest.raises(ValueError, match=message):
    ECG(signal, rate)


@pytest.mark.parametrize("name", ["twin.hea", "twin", "twin.csv", "twin.npz"])
@pytest.mark.parametrize("rate,samples", [(102.4, 1024), (500.0, 5000)])
def test_written_files_are_read_back(tmp_path, name, rate, samples):
  comments = ("age: 81", "größer, als = gedacht\n # so")
  ecg = ECG(make_signal(samples), rate, "source", comments)
  ecg.write(tmp_path / "new" / name)
  back = read_ecg(tmp_path / "new" / name)
  step = 0 if "." in name and "hea" not in name else 0.5e-3
  np.testing.assert_allclose(back.signal, ecg.signal, rtol=0, atol=step + 1e-8)
  assert back.sampling_rate == rate and back.record == "twin"
  assert back.comments == ("age: 81", "größer, als = gedacht # so")
  if step:  # what was rounded once is not rounded again
    back.write(tmp_path / "again.hea")
    again = read_ecg(tmp_path / "again.hea")
    np.testing.assert_array_equal(again.signal, back.signal)


@pytest.mark.parametrize(
  "name,scale,message",
  [
    ("twin.pdf", 1, "must end in .hea, .csv or .npz"),
    ("tw in.hea", 1, "letters, digits"),
    ("twin.hea", 1e2, "must be below 32.767 mV"),
  ],
)
def test_write_refuses(tmp_path, name, scale, message):
  with pytest.raises(ValueError, match=message):
    ECG(make_signal(99) * scale, 500.0).write(tmp_path / name)


@pytest.mark.parametrize("form", ["16", "24", "32", "80", "212"])
def test_wfdb_formats(tmp_path, form):
  signal = make_signal()
  gain = 100.0 if form == "80" else 1000.0
  path = write_wfdb(tmp_path, signal, fmt=[form] * 12, adc_gain=[gain] * 12)
  np.testing.assert_allclose(
    read_ecg(path).signal, signal, atol=0.5 / gain + 1e-6
  )


def test_wfdb_start_and_duration(tmp_path):
  signal = make_signal(7919)
  path = write_wfdb(tmp_path, signal, rate=360.5)
  ecg = read_ecg(path, start=3.7, duration=11.0)
  first = round(3.7 * 360.5)
  assert ecg.signal.shape == (round(11 * 360.5), 12)
  np.testing.assert_allclose(
    ecg.signal, signal[first : first + len(ecg.signal)], atol=3e-4
  )


def test_wfdb_ignores_signals_it_does_not_need(tmp_path):
  signal = make_signal()
  both = np.concatenate([signal, np.full((5000, 3), 5.0)], 1)
  path = write_wfdb(tmp_path, both, names=[*LEADS, "vx", "vy", "vz"])
  # The Frank leads lie in a file of their own, and it is lost.
  header = path.with_suffix(".hea")
  text = header.read_text().splitlines()
  text[13:16] = [x.replace("rec.dat", "rec.xyz") for x in text[13:16]]
  header.write_text("\n".join(text))
  signal_file = np.fromfile(path.with_suffix(".dat"), "<i2").reshape(-1, 15)
  signal_file[:, :12].tofile(path.with_suffix(".dat"))
  np.testing.assert_allclose(read_ecg(path).signal, signal, atol=3e-4)


def test_wfdb_micro_sign(tmp_path):
  signal = make_signal()
  for sign in ("\u00b5", "u"):
    path = write_wfdb(tmp_path, signal * 1e3, units="uV", adc_gain=[2.0] * 12)
    edit(path.with_suffix(".hea"), ("/uV", f"/{sign}V"))  # as Latin-1
    np.testing.assert_allclose(read_ecg(path).signal, signal, atol=3e-4)


def test_wfdb_without_units_rate_and_length(tmp_path):
  path = write_wfdb(tmp_path, make_signal(2503), rate=250)
  header = path.with_suffix(".hea")
  edit(header, ("/mV", ""), ("rec 12 250 2503", "rec 12"))
  ecg = read_ecg(path)
  assert ecg.sampling_rate == 250 and ecg.signal.shape == (2500, 12)


def test_wfdb_segments(tmp_path):
  signal = make_signal(6000)
  for i, part in enumerate((signal[:3001], signal[3001:])):
    path = write_wfdb(tmp_path, part)
    path.with_suffix(".dat").rename(tmp_path / f"part{i}.dat")
    header = tmp_path / f"part{i}.hea"
    path.with_suffix(".hea").rename(header)
    edit(header, ("rec.dat", f"part{i}.dat"), ("rec 12", f"part{i} 12"))
  header = tmp_path / "whole.hea"
  header.write_text("whole/2 12 500 6000\npart0 3001\npart1 2999\n")
  ecg = read_ecg(header, start=1.0)
  np.testing.assert_allclose(ecg.signal, signal[500:5500], atol=3e-4)


def test_wfdb_nan_and_flat_leads_are_refused_by_name(tmp_path):
  signal = make_signal()
  signal[:300, 9] = np.nan
  with pytest.raises(ValueError, match=r"rec: lead V4 is NaN in 6\.0%"):
    read_ecg(write_wfdb(tmp_path, signal))
  signal[:, 9] = 0
  with pytest.raises(ValueError, match="rec: lead V4 is a flat line"):
    read_ecg(write_wfdb(tmp_path, signal))


HEADERS = {
  "nothing": "",
  "words": "this is no header",
  "binary": "\x00\x01\x02",
  "lines missing": "rec 12 500 5000\nrec.dat 16 1000/mV 16 0 0 0 0 I\n",
  "signal line": "rec 1 500 5000\n???\n",
  "rate": "rec 1 x500 5000\nrec.dat 16 1000/mV 16 0 0 0 0 I\n",
}


@pytest.mark.parametrize("kind", HEADERS)
def test_corrupt_header(tmp_path, kind):
  path = write_wfdb(tmp_path, make_signal())
  path.with_suffix(".hea").write_text(HEADERS[kind])
  message = re.escape(f"{path}: the header cannot be read (")
  with pytest.raises(ValueError, match=message) as caught:
    read_ecg(path)
  assert "\n" not in str(caught.value)


def test_truncated_and_missing_files(tmp_path):
  path = write_wfdb(tmp_path, make_signal())
  data = path.with_suffix(".dat")
  data.write_bytes(data.read_bytes()[:-100])
  with pytest.raises(ValueError, match="rec: the samples cannot be read"):
    read_ecg(path)
  data.unlink()
  with pytest.raises(
    FileNotFoundError, match=r"rec\.dat is not there: rec\.hea"
  ):
    read_ecg(path)
  for name in ("none", "none.hea", "none.csv", "none.npz"):
    with pytest.raises(FileNotFoundError, match=r"none.* is not there: give"):
      read_ecg(tmp_path / name)


def test_too_short_too_slow_too_few_leads(tmp_path):
  path = write_wfdb(tmp_path, make_signal(4999))
  with pytest.raises(ValueError, match="rec: too short: 10 s from 0 s on"):
    read_ecg(path)
  with pytest.raises(ValueError, match="from 9 s on are needed"):
    read_ecg(path, start=9.0, duration=1.0)
  with pytest.raises(ValueError, match=r"start=-1\.0"):
    read_ecg(path, start=-1.0)
  path = write_wfdb(tmp_path, make_signal(500), rate=40)
  with pytest.raises(ValueError, match="sampling_rate=40 must be at least 50"):
    read_ecg(path)
  path = write_wfdb(tmp_path, make_signal()[:, :2], names=["II", "V5"])
  with pytest.raises(ValueError, match=r"rec: lead I, III, .* is missing"):
    read_ecg(path)
  path = write_wfdb(tmp_path, make_signal()[:, :2], names=["resp", "pleth"])
  with pytest.raises(ValueError, match=r"none of its signals \(resp, pleth\)"):
    read_ecg(path)


def write_csv(path, head, rows):
  lines = [",".join(f"{x:.6g}" for x in row) for row in rows]
  path.write_text("\n".join([*head, *lines]), encoding="utf-8")
  return path


def test_csv_with_a_time_column(tmp_path):
  signal = make_signal(5100) * 1e3
  time = np.round(3 + np.arange(5100) / 500, 3)
  path = write_csv(
    tmp_path / "a.csv",
    ["\ufeff# units = µV", "# seen by nobody", "", ",".join(["time", *LEADS])],
    np.column_stack([time, signal]),
  )
  ecg = read_ecg(path)
  assert ecg.sampling_rate == pytest.approx(500, rel=1e-6)
  assert ecg.comments == ("seen by nobody",)
  np.testing.assert_allclose(ecg.signal, signal[:5000] / 1e3, atol=1e-5)


def test_csv_with_empty_cells(tmp_path):
  head = ["# sampling_rate=100,units=mV", ",".join(LEADS)]
  path = write_csv(tmp_path / "a.csv", head, make_signal(1000) + 1)
  lines = path.read_text().splitlines()
  lines[2] = lines[2].rsplit(",", 1)[0] + ", "
  path.write_text("\n".join(lines))
  ecg = read_ecg(path)
  assert ecg.signal[0, 11] == 0 and ecg.signal[0, 10] != 0


@pytest.mark.parametrize(
  "head,rows,message",
  [
    ([",".join(LEADS)], make_signal(9), "a comment line '# sampling_rate=500"),
    (["# sampling_rate=500"], [], "a line of lead names"),
    ([], [], "a line of lead names"),
    (["# sampling_rate=x", "I,II"], [[1, 2]], "could not convert"),
    (["# sampling_rate=0", "I,II"], [[1, 2]], "must be at least 50"),
    (["# sampling_rate=500", "I,II", "1,a"], [[1, 2]], "a.csv: could not"),
    (["# sampling_rate=500", "I,II", "1"], [[1, 2]], "columns changed"),
    (["time,I"], [[0, 1], [5, 2], [1, 3]], "column 'time' must be in seconds"),
    (["time,I"], [[0, 1], [1, 2], [9, 3]], "evenly spaced"),
    (["time,I"], [[0, 1], [0, 2]], "evenly spaced"),
    (["time,I"], [[0, 1]], "evenly spaced"),
    (["I,II,time"], [[0, 1], [1, 2]], "3 names must be as many as columns: 2"),
  ],
)
def test_csv_faults(tmp_path, head, rows, message):
  path = write_csv(tmp_path / "a.csv", head, rows)
  with pytest.raises(ValueError, match=message) as caught:
    read_ecg(path)
  assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_npz_faults(tmp_path):
  path = tmp_path / "a.npz"
  good = dict(
    signal=make_signal(1000), sampling_rate=100, leads=LEADS, units=["mV"] * 12
  )
  np.savez(path, **good)
  assert read_ecg(path).signal.shape == (1000, 12)
  for key, bad in (
    ("signal", np.array(["a"])),
    ("sampling_rate", [1, 2]),
    ("leads", LEADS[:3]),
    ("units", "parsec"),
    ("units", 3),
    ("comments", "none"),
    ("comments", ["\ud800"]),
  ):
    np.savez(path, **{**good, key: bad})
    with pytest.raises(ValueError, match=r"a\.npz: "):
      read_ecg(path)
  np.savez(path, **{**good, "signal": np.zeros(1000)})
  with pytest.raises(ValueError, match=r"must be \(samples, leads\)"):
    read_ecg(path)
  good.pop("leads")
  np.savez(path, **good)
  with pytest.raises(ValueError, match=r"not an \.npz file with arrays"):
    read_ecg(path)
  path.write_bytes(b"no archive")
  with pytest.raises(ValueError, match=r"not an \.npz file with arrays"):
    read_ecg(path)


def test_wfdb_is_quiet_for_users(tmp_path):
  path = write_wfdb(tmp_path, make_signal())
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    read_ecg(path)
  assert not caught


def test_limb_leads_follow_einthoven_and_goldberger():
  by_hand = {"III": (-1, 1), "aVR": (-0.5, -0.5), "aVF": (-0.5, 1)}
  for lead, (i, ii) in by_hand.items():
    row = FROM_INDEPENDENT[LEADS.index(lead), :2]
    np.testing.assert_array_equal(row, (i, ii))
