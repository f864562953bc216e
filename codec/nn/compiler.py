"""Builds the C++ of this folder, once for each processor.

It shares torch's own OpenMP threads: after a layer these look out for more work for some milliseconds before they
sleep, and threads of our own would have to wait for their cores just as long.
"""

import hashlib
import os
import platform
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
SOURCES, HEADERS = (tuple(sorted(HERE.glob(names))) for names in ("*.cpp", "*.h"))
# compilers hold back from an x86's widest registers, which once slowed it down
WIDE = ("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC", *WIDE)
OPENMP = ("-fopenmp",)  # not every compiler has it; built without, the kernels run on one core
USES_OPENMP = "#include <omp.h>\nint threads() { return omp_get_max_threads(); }\n"


def build(compiler: str) -> Path:
    """The shared library, from the user's cache or built now. Its name follows sources, compiler and processor.

    Raises: OSError, subprocess.SubprocessError where that fails.
    """
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    sources = [source.read_text() for source in (*SOURCES, *HEADERS)]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neutok"

    def named(flags: Sequence[str]) -> Path:
        identity = "\n".join((*sources, version, *flags, platform.machine(), _processor()))
        return folder / f"layers-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"

    flags = (*FLAGS, *OPENMP)
    target = named(flags)
    if not target.exists() and not _has_openmp(compiler):
        flags, target = FLAGS, named(FLAGS)
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            built = Path(unfinished) / "layers.so"
            try:
                _compile([compiler, *flags, *map(str, SOURCES), "-o", str(built)])
                built.replace(target)  # whole or not at all, whoever builds at the same time
            except subprocess.SubprocessError:
                if not target.exists():  # unless another process was quicker, and lucky
                    raise
    return target


def _has_openmp(compiler: str) -> bool:
    """Asked of a few lines: a whole build may fail for other reasons, and would then be for one core for good."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "threads.cpp"
        source.write_text(USES_OPENMP)
        try:
            _compile([compiler, *OPENMP, "-shared", "-fPIC", str(source), "-o", str(Path(folder) / "threads.so")])
        except subprocess.CalledProcessError:
            warnings.warn("the C++ compiler has no OpenMP: layers run on one core", stacklevel=2)
            return False
    return True


def _compile(command: Sequence[str]) -> None:
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def _processor() -> str:
    """What `-march=native` depends on: a home shared by unlike machines must not share the library."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
