"""What was freed stays with the process, until it is given back."""

import subprocess
import sys

import pytest

CODE = """
import ctypes, pathlib, sys
from ecgtwin_jax.training import host_memory

def resident():
  status = pathlib.Path("/proc/self/status").read_text()
  return int(status.split("VmRSS:")[1].split()[0]) * 1024

if sys.argv[1] != "leave":
  host_memory.keep_freed()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
size, before = 2**26, resident()
buffer = libc.malloc(size)
ctypes.memset(buffer, 1, size)
assert resident() - before > 0.9 * size
libc.free(buffer)
if sys.argv[1] == "keep, give back":
  host_memory.give_back()
print(resident() - before > 0.9 * size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone has it")
@pytest.mark.parametrize(
  "word, kept",
  [("keep", "True"), ("leave", "False"), ("keep, give back", "False")],
)
def test_freed_memory_stays(word, kept):
  done = subprocess.run(
    [sys.executable, "-c", CODE, word],
    capture_output=True,
    text=True,
    check=True,
    timeout=60,
  )
  assert done.stdout.strip() == kept
