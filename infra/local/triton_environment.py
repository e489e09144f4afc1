"""Makes `.venv-triton`: the virtual environment with tritonserver, its Python backend and what our models import.

    python -m infra.local.triton_environment [DIRECTORY]

It is separate from the platform's because tritonserver's Python backend needs numpy 1 (with numpy 2 it hands the models garbage,
silently). Only the standard library is used here, because `make setup` may run this before anything is installed.
"""

import ctypes
import hashlib
import json
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / "triton" / "requirements.lock"


class CannotInstall(RuntimeError):
    """The environment cannot be made on this machine; the message says why and what to do."""


def check_platform() -> None:
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        raise CannotInstall(
            f"tritonserver is not published for {sys.platform} on {platform.machine()}. "
            "Run it elsewhere and set TRITON_URL to its gRPC address (host:port)."
        )


def check_python_library() -> Path:
    """The directory of the interpreter's shared library, which the Python backend loads."""
    directory = Path(sysconfig.get_config_var("LIBDIR") or "")
    name = str(sysconfig.get_config_var("INSTSONAME") or "")
    try:
        if not name.endswith(".so.1.0"):
            raise OSError("this interpreter was built without a shared library")
        ctypes.CDLL(str(directory / name) if (directory / name).exists() else name)
    except OSError as error:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise CannotInstall(
            f"tritonserver needs Python's shared library, libpython{version}.so.1.0: {error}. Install your system's package "
            f"of it (libpython{version}), or use an interpreter built with --enable-shared."
        ) from error
    return directory


def install(directory: Path) -> None:
    libraries = check_python_library()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=True)
    python = directory / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--require-hashes"]
    subprocess.run([*pip, "--requirement", str(REQUIREMENTS)], check=True)

    packages = directory / "lib" / f"python{version}" / "site-packages"
    packaged = packages / "pytriton" / "tritonserver"
    stub = packaged / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        known = ", ".join(sorted(path.name for path in stub.parent.parent.iterdir()))
        raise CannotInstall(f"tritonserver's Python backend knows Python {known}, not {version}. Use one of these.")
    server = directory / "tritonserver"
    shutil.copytree(packaged, server, ignore=shutil.ignore_patterns("python_backend_stubs"))
    shutil.copy2(stub, server / "backends" / "python")
    description = {
        "server": str(server),
        "library_path": f"{libraries}:{packages / 'nvidia_pytriton.libs'}",
        "python": version,
        "requirements_sha256": hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest(),
    }
    (directory / "server.json").write_text(json.dumps(description, indent=2) + "\n")


def main() -> None:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else ".venv-triton").absolute()
    try:
        check_platform()
        install(directory)
    except CannotInstall as error:
        sys.exit(f"{error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(error.cmd[:4])} … failed with status {error.returncode}; its output is above.")


if __name__ == "__main__":
    main()
