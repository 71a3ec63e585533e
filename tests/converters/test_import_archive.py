"""Programs to import that are something else, damaged, or meant to harm; outputs that cannot be written."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from caffecli.errors import FormatError, SpecError
from caffecli.spec.load import load_net
from converters import import_
from tests.converters.importing import module_of, save


def rewritten(path, out, change):
    """The archive with its members changed by ``change(name, content)``."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, change(info.filename, old.read(info)))
    return out


class Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def program(tmp_path):
    module, example = module_of("SqueezeNet")
    return save(module, example, tmp_path / "m.pt2", dynamic_shapes=({0: torch.export.Dim("batch")},))


def test_nothing_in_the_file_is_run(program, tmp_path):
    """Pickles, expressions and code where torch.export.load would run them."""
    evil = pickle.dumps(Harm(tmp_path / "harmed"))
    code = f"__import__('pathlib').Path({str(tmp_path / 'harmed')!r}).touch()"

    def change(name, content):
        if name.endswith(".pt"):
            return evil
        if name.endswith("models/model.json"):
            whole = json.loads(content)
            whole["guards_code"] = [code]
            for size in (value["sizes"][0] for value in whole["graph_module"]["graph"]["tensor_values"].values()):
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code
            return json.dumps(whole).encode()
        return content

    path = rewritten(program, tmp_path / "evil.pt2", change)
    import_.import_program(path, tmp_path / "net")
    assert load_net(tmp_path / "net.prototxt").layer[0].input_param.shape[0].dim[0] == 2  # as the example had it
    assert not (tmp_path / "harmed").exists()


def test_pickled_weights_are_refused(program, tmp_path):
    def change(name, content):
        if name.endswith("weights_config.json"):
            whole = json.loads(content)
            for entry in whole["config"].values():
                entry["use_pickle"] = True
            return json.dumps(whole).encode()
        return pickle.dumps(Harm(tmp_path / "harmed")) if "/weights/" in name else content

    with pytest.raises(FormatError, match=r"'.*' is not kept as plain numbers"):
        import_.import_program(rewritten(program, tmp_path / "evil.pt2", change), tmp_path / "net")
    assert not (tmp_path / "harmed").exists()


def test_damaged_programs(program, tmp_path):
    def fails(change, why):
        with pytest.raises(
            FormatError, match=rf"evil\.pt2': the program in it is damaged, or of another version \({why}"
        ):
            import_.import_program(rewritten(program, tmp_path / "evil.pt2", change), tmp_path / "net")

    fails(lambda name, content: content[:4] if "/weight_" in name else content, "ValueError: array '.*' reaches beyond")
    fails(lambda name, content: b"[" * 100_000 if name.endswith("model.json") else content, "RecursionError")
    fails(lambda name, content: b"{}" if name.endswith("model.json") else content, "KeyError: 'graph_module'")
    fails(
        lambda name, content: content.replace(b'"strides": [{"as_int": 6', b'"strides": [{"as_int": -6'),
        "ValueError: array",
    )
    assert not (tmp_path / "net.prototxt").exists()


def test_files_of_other_kinds(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(
        FormatError, match=r"model\.pt' was pickled .*, and is not read: .*; save it anew: torch\.export\.save\("
    ):
        import_.import_program(tmp_path / "model.pt", tmp_path / "net")
    (tmp_path / "half.pt2").write_bytes((tmp_path / "model.pt").read_bytes()[:500])
    with pytest.raises(
        FormatError, match=r"half\.pt2' is a zip file that is cut off or damaged; copy it again, or save it anew"
    ):
        import_.import_program(tmp_path / "half.pt2", tmp_path / "net")
    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as file:
        file.writestr("serialized_exported_program.json", "{}")
    with pytest.raises(FormatError, match=r"old\.pt2' was saved by PyTorch before 2\.8"):
        import_.import_program(tmp_path / "old.pt2", tmp_path / "net")


def test_names_of_inputs(program, tmp_path):
    for names in (["a", "b"], ["a", "a"]):
        with pytest.raises(SpecError, match=r"m\.pt2' has 1 input\(s\), x: give as many different names, not"):
            import_.import_program(program, tmp_path / "net", names)


def test_both_files_or_none(program, tmp_path):
    (tmp_path / "net.caffemodel").write_text("mine")
    with pytest.raises(FormatError, match=r"net\.caffemodel' exists; remove it or choose another name"):
        import_.import_program(program, tmp_path / "net")
    assert (tmp_path / "net.caffemodel").read_text() == "mine"
    (tmp_path / "net.caffemodel").unlink()
    with pytest.raises(FormatError, match=r"cannot write .*create the folder .*nowhere' first"):
        import_.import_program(program, tmp_path / "nowhere" / "net")
    shutil.rmtree(tmp_path / "nowhere", ignore_errors=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.pt2"]


def test_values_that_are_made_of_themselves(program, tmp_path):
    def change(name, content):
        if not name.endswith("models/model.json"):
            return content
        whole = json.loads(content)
        first, last = whole["graph_module"]["graph"]["nodes"][0], whole["graph_module"]["graph"]["nodes"][-1]
        first["inputs"][0]["arg"] = {"as_tensor": {"name": last["outputs"][0]["as_tensor"]["name"]}}
        return json.dumps(whole).encode()

    path = rewritten(program, tmp_path / "round.pt2", change)
    with pytest.raises(FormatError, match=r"round\.pt2': the program in it is damaged.* reads '.*' before it is made"):
        import_.import_program(path, tmp_path / "net")
