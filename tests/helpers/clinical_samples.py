"""Small files as devices write them, of a signal in steps of 5 uV.

All of them name John Q. Smith, number 4711, born 12 May 1957, a man of 63, whom
no reader may remember but for age and sex.
"""

import base64
import binascii
import datetime
import struct
import zlib

import numpy as np
import pyedflib

from ecgtwin_jax.data.leads import LEADS

STEP = 5e-3  # mV
RATE = 500
SECRETS = ("Smith", "John", "4711", "1957", "19570512", "Brown")
EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


def steps_of(signal):
  return np.rint(signal / STEP).astype("<i2")


def column(signal, lead):
  return steps_of(signal)[:, LEADS.index(lead)]


def write_pyedflib(path, signal, labels=None):
  writer = pyedflib.EdfWriter(str(path), 12, file_type=1)
  writer.setPatientName("John_Q_Smith")
  writer.setPatientCode("4711")
  writer.setSex(1)
  writer.setBirthdate(datetime.date(1957, 5, 12))
  writer.setPatientAdditional("Dr._Brown")
  writer.setStartdatetime(datetime.datetime(2020, 2, 5, 11, 39, 16))
  for i, lead in enumerate(LEADS):
    writer.setSignalHeader(
      i,
      {
        "label": labels[i] if labels else f"ECG {lead}",
        "dimension": "uV",
        "sample_frequency": RATE,
        "physical_max": 163835,
        "physical_min": -163835,
        "digital_max": 32767,
        "digital_min": -32767,
        "transducer": "",
        "prefilter": "",
      },
    )
  columns = steps_of(signal).T * 5.0
  writer.writeSamples([np.ascontiguousarray(x) for x in columns])
  writer.writeAnnotation(0, -1, "seen by Dr. Brown")
  writer.close()


def write_aecg(path, signal):
  leads = "".join(
    f"""<component><sequence><code code="MDC_ECG_LEAD_{lead.upper()}"
codeSystem="2.16.840.1.113883.6.24"/><value xsi:type="SLIST_PQ">
<origin value="0" unit="uV"/><scale value="5" unit="uV"/><digits>
{" ".join(map(str, column(signal, lead)))}</digits></value></sequence>
</component>"""
    for lead in LEADS
  )
  path.write_text(f"""<?xml version="1.0" encoding="UTF-8"?>
<AnnotatedECG xmlns="urn:hl7-org:v3"
xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<id root="61d1a24f-b47e-41aa-ae95-f8ac302f4eeb"/>
<effectiveTime><low value="20200205113916"/></effectiveTime>
<componentOf><timepointEvent><componentOf><subjectAssignment><subject>
<trialSubject><id root="2.16" extension="4711"/><subjectDemographicPerson>
<name>John Smith</name><administrativeGenderCode code="M"/>
<birthTime value="19570512"/></subjectDemographicPerson></trialSubject>
</subject></subjectAssignment></componentOf></timepointEvent></componentOf>
<component><series><code code="RHYTHM"/><effectiveTime>
<low value="20200205113916"/><high value="20200205113926"/></effectiveTime>
<component><sequenceSet><component><sequence><code code="TIME_ABSOLUTE"/>
<value xsi:type="GLIST_TS"><head value="20200205113916"/>
<increment value="0.002" unit="s"/></value></sequence></component>{leads}
</sequenceSet></component></series></component></AnnotatedECG>""")


def write_muse(path, signal, checksum=None, unit="MICROVOLTS"):
  leads = []
  for lead in EIGHT:
    data = column(signal, lead).tobytes()
    leads.append(f"""<LeadData>
<LeadByteCountTotal>{len(data)}</LeadByteCountTotal>
<LeadSampleCountTotal>{len(signal)}</LeadSampleCountTotal>
<LeadAmplitudeUnitsPerBit>5</LeadAmplitudeUnitsPerBit>
<LeadAmplitudeUnits>{unit}</LeadAmplitudeUnits>
<LeadID>{lead}</LeadID><LeadSampleSize>2</LeadSampleSize>
<LeadDataCRC32>{checksum or zlib.crc32(data)}</LeadDataCRC32>
<WaveFormData>{base64.b64encode(data).decode()}</WaveFormData></LeadData>""")
  path.write_text(f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<!DOCTYPE RestingECG SYSTEM "restecg.dtd">
<RestingECG><PatientDemographics><PatientID>4711</PatientID>
<PatientAge>63</PatientAge><AgeUnits>YEARS</AgeUnits>
<DateofBirth>05-12-1957</DateofBirth><Gender>MALE</Gender>
<PatientLastName>Smith</PatientLastName>
<PatientFirstName>John</PatientFirstName></PatientDemographics>
<Waveform><WaveformType>Rhythm</WaveformType><SampleBase>{RATE}</SampleBase>
<SampleExponent>0</SampleExponent>{"".join(leads)}</Waveform></RestingECG>""")


def write_philips(path, signal, kind="SierraECG"):
  data = np.concatenate([column(signal, lead) for lead in LEADS]).tobytes()
  path.write_text(f"""<?xml version="1.0" encoding="UTF-8"?>
<restingecgdata xmlns="http://www3.medical.philips.com"><documentinfo>
<documenttype>{kind}</documenttype><documentversion>1.03</documentversion>
</documentinfo><dataacquisition date="2020-02-05" time="11:39:16">
<signalcharacteristics><samplingrate>{RATE}</samplingrate>
<signalresolution>5</signalresolution><acquisitiontype>STD-12</acquisitiontype>
<bitspersample>16</bitspersample><signaloffset>0</signaloffset>
<signalsigned>True</signalsigned>
<numberchannelsallocated>12</numberchannelsallocated>
<numberchannelsvalid>12</numberchannelsvalid><leadset>STD-12</leadset>
</signalcharacteristics></dataacquisition><patient><generalpatientdata>
<patientid>4711</patientid><name><lastname>Smith</lastname>
<firstname>John</firstname></name><age><years>63</years></age><sex>Male</sex>
</generalpatientdata></patient><waveforms><parsedwaveforms
dataencoding="Base64" numberofleads="12" leadlabels="{" ".join(LEADS)}"
durationperchannel="{len(signal) * 1000 // RATE}">
{base64.b64encode(data).decode()}</parsedwaveforms></waveforms>
</restingecgdata>""")


def write_scp(path, signal):
  """Sections 0, 1 (tags), 3 (leads) and 6 (samples as they are)."""
  codes = {"I": 1, "II": 2, **{f"V{i}": 2 + i for i in range(1, 7)}}
  tags = b"".join(
    struct.pack("<BH", tag, len(value)) + value
    for tag, value in (
      (0, b"Smith\0"),
      (1, b"John\0"),
      (2, b"4711\0"),
      (4, struct.pack("<HB", 63, 1)),
      (5, struct.pack("<HBB", 1957, 5, 12)),
      (8, b"\x01"),
      (255, b""),
    )
  )
  count = len(signal)
  leads = bytes([len(codes), 0x04 | len(codes) << 3 & 0xFF]) + b"".join(
    struct.pack("<IIB", 1, count, code) for code in codes.values()
  )
  rows = [column(signal, lead).tobytes() for lead in codes]
  samples = struct.pack("<HHBB", 5000, 1_000_000 // RATE, 0, 0)
  samples += b"".join(struct.pack("<H", len(row)) for row in rows)
  samples += b"".join(rows)
  bodies = {1: tags + b"\0" * (len(tags) % 2), 3: leads, 6: samples}
  pointers, place = [], 7
  for number, length in (
    (0, 16 + 10 * 4),
    *((n, 16 + len(body)) for n, body in bodies.items()),
  ):
    pointers.append(struct.pack("<HII", number, length, place))
    place += length
  content = b"".join(
    _section(number, body, b"SCPECG" if number == 0 else b"\0" * 6)
    for number, body in {0: b"".join(pointers), **bodies}.items()
  )
  sized = struct.pack("<I", 6 + len(content)) + content
  path.write_bytes(struct.pack("<H", binascii.crc_hqx(sized, 0xFFFF)) + sized)


def _section(number, body, reserved):
  head = struct.pack("<HIBB", number, 16 + len(body), 20, 20) + reserved
  checked = head + body
  return struct.pack("<H", binascii.crc_hqx(checked, 0xFFFF)) + checked
