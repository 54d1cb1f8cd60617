# Set-up, the same in every notebook. Only on Colab does it download anything.
import importlib.util
import subprocess
import sys
from pathlib import Path

REPOSITORY = ""  # for Colab: the address that you would give to `git clone`

if importlib.util.find_spec("gemm_lessons") is None:
    folders = (Path.cwd(), *Path.cwd().parents, Path.cwd() / "workbook")
    checkout = next((folder for folder in folders if (folder / "gemm_lessons").is_dir()), None)
    if checkout is None and not ("google.colab" in sys.modules and REPOSITORY):
        raise SystemExit("gemm_lessons is not installed: use `make lab`; on Colab, set REPOSITORY above")
    if checkout is None:
        checkout = Path.cwd() / "workbook"
        subprocess.run(["git", "clone", "--quiet", "--depth=1", REPOSITORY, checkout], check=True)
        wanted = f"{checkout}[lab,cu12]"
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", wanted], check=True)
    sys.path.insert(0, str(checkout))

from gemm_lessons import lesson

lesson.begin()
