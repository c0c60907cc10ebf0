"""A script beside the clone imports what is installed, though the clone's folder is called metarl as well."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REMEDY = "install again: pip install -e . (an older editable install is hidden by a clone called metarl)"


@pytest.fixture
def parent(tmp_path):
    """A folder with the clone in it, called metarl."""
    if (ROOT / "metarl" / "envs").is_symlink():
        (tmp_path / "metarl").symlink_to(ROOT, target_is_directory=True)
        return tmp_path
    pytest.skip("this checkout has no symlinks")


def run(parent, *arguments, **variables):
    """Python in that folder, with nothing on its path but what is installed."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=parent, env=kept | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{REMEDY}"
    return done.stdout.strip()


def imports_of_readme():
    """Every import of the README's Python, in order."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return re.findall(r"^(?:import|from) .*", "\n".join(blocks), re.MULTILINE)


def test_a_script_imports_what_is_installed(parent):
    script = parent / "script.py"
    script.write_text("\n".join([*imports_of_readme(), "import metarl", "print(metarl.__file__, metarl.__version__)"]))
    file, version = run(parent, "script.py").split()
    assert Path(file).name == "__init__.py"
    assert Path(file).parent.name == "metarl"
    assert version[0].isdigit()


def test_so_does_a_prompt(parent):
    assert run(parent, "-c", "import metarl; print(metarl.__file__)").endswith("__init__.py")
    assert "usage: metarl" in run(parent, "-m", "metarl", "--help").lower()


def test_a_tree_on_the_path_comes_first(parent, tmp_path):
    other = tmp_path / "other" / "metarl"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("")
    file = run(parent, "-c", "import metarl; print(metarl.__file__)", PYTHONPATH=str(other.parent))
    assert Path(file).parent == other


def test_gymnasiums_mujoco_works_after_installing(parent):
    """Its environments import imageio where they render, which the extra `gymnasium[mujoco]` brings."""
    make = 'gymnasium.make("HalfCheetah-v5", render_mode="rgb_array")'
    assert run(parent, "-c", f"import gymnasium; print({make}.spec.id)") == "HalfCheetah-v5"
