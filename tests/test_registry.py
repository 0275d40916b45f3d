from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sam_spl.errors import ConfigError
from sam_spl.registry import Registry, import_object
from tests.conftest import ROOT


@pytest.mark.parametrize(
    "reference", [":Tiny", "./net:Tiny", ".net:Tiny", "net.:Tiny", "os:", "os:path.join", "a b:C", "net.py:"]
)
def test_references_of_another_form_are_refused(reference):
    with pytest.raises(ConfigError, match=r"model: .* is not valid\. Give module:object or path/to/file\.py"):
        import_object(reference, "model")


def test_modules_and_objects_that_are_not_there_are_named(tmp_path):
    for reference in ("no_such_module:A", "os.no_such:A", f"{tmp_path}/net.py:A"):
        with pytest.raises(ConfigError, match="cannot be imported"):
            import_object(reference, "model")
    with pytest.raises(ConfigError, match=r"os has no 'pathh'\. Nearest: path"):
        import_object("os:pathh", "model")
    (tmp_path / "net.py").write_text("import n\n")
    with pytest.raises(ModuleNotFoundError):  # the file is there; what it imports is not
        import_object(f"{tmp_path}/net.py:A", "model")


def test_a_reference_is_callable_where_all_entries_are():
    with pytest.raises(ConfigError, match="loss: 'os:path' is not callable"):
        Registry("loss", {"a": len})["os:path"]
    assert Registry("loss", {"a": len})["os:getcwd"] is os.getcwd
    assert Registry("protocols", {"a": 1})["os:path"] is os.path


def test_the_module_of_a_file_has_one_name_in_every_process(tmp_path):
    (tmp_path / "net.py").write_text("class Tiny:\n    pass\n")
    code = (
        "import sys; from sam_spl.registry import import_object as i; print(i(sys.argv[1], 'x').__module__)"
    )
    names = {
        subprocess.run(
            [sys.executable, "-c", code, f"{tmp_path}/net.py:Tiny"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(names) == 1
