"""Bundles on disk: written whole or not at all, read in full or refused by name."""

import json
import os
import threading
from pathlib import Path

import pytest

from derain.runtime import bundle as bundles
from derain.runtime.bundle import Bundle
from derain.runtime.manifest import EngineEntry, GraphEntry, Precision, Quality


def edited(bundle: Bundle, **changes) -> Path:
    """Change top-level keys of the manifest on disk; None removes one."""
    path = bundle.path / "manifest.json"
    manifest = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))
    return bundle.path


def fault(path: Path, kind: type[Exception] = ValueError) -> str:
    with pytest.raises(kind) as caught:
        Bundle.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert "derain export" in message
    return message


def test_a_written_bundle_loads_with_the_same_manifest_and_files(bundle):
    loaded = Bundle.load(bundle.path)
    assert loaded.manifest == bundle.manifest
    assert loaded.file("weights.safetensors").read_bytes() == b"weights"
    assert loaded.graph(Precision.FP32) == bundle.path / "graph.fp32.onnx"
    assert [path.name for path in bundle.path.parent.iterdir()] == ["bundle"]


def test_a_missing_folder_and_a_folder_without_a_manifest_say_how_to_make_a_bundle(tmp_path):
    assert "no such bundle" in fault(tmp_path / "nowhere", FileNotFoundError)
    assert f"make one with `derain export … --out {tmp_path}`" in fault(tmp_path, FileNotFoundError)
    (tmp_path / "mine").touch()  # where export would refuse to put one
    told = fault(tmp_path, FileNotFoundError)
    assert "no manifest.json" in told and "make one elsewhere" in told


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"colour": "red"}, ["colour", "unknown key", "'red'"]),
        ({"schema_version": 2}, ["schema_version", "should be 1", "got 2"]),
        ({"unroll": None}, ["unroll", "missing"]),
        ({"derain_version": 1}, ["derain_version", "valid string", "got 1"]),
        ({"files": {}}, ["no entry for graph.fp32.onnx"]),
        ({"graphs": []}, ["graph.fp32.onnx is listed"]),
        ({"graphs": [{"precision": "fp32", "file": "../x"}]}, ["graphs.0.file", "'../x'"]),
        ({"graphs": [{"precision": "fp64", "file": "x"}]}, ["graphs.0.precision", "'fp32'", "'fp64'"]),
        ({"graphs": [{"precision": "fp32", "file": "graph.fp32.onnx"}] * 2}, ["one graph a precision", "fp32, fp32"]),
        (
            {"model": {"name": "x", "parameters": 0, "config": {"options": {"steps": float("nan")}}}},
            ["model.config", "NaN or infinite", "expected finite"],
        ),
        ({"input": {"tensor": "frame", "width": 65536, "height": 16}}, ["input.width", "65535", "got 65536"]),
        (
            {"input": {"tensor": "frame", "width": 33, "height": 16, "pixels": "nv12"}},
            ["input", "33", "even", "32 or 34"],
        ),
    ],
)
def test_a_manifest_that_is_not_understood_is_refused_by_key_and_value(bundle, changes, parts):
    message = fault(edited(bundle, **changes))
    assert [part for part in parts if part not in message] == []


def test_a_manifest_that_is_not_json_is_refused(bundle):
    manifest = bundle.path / "manifest.json"
    manifest.write_text("\ufeff" + manifest.read_text())
    assert "not JSON" in fault(bundle.path)
    manifest.write_text('{"schema_version": 1,')
    told = fault(bundle.path)
    assert "not JSON" in told
    assert f"remove {bundle.path} and export it again" in told  # export would not replace what it cannot tell


def test_a_changed_file_is_refused_by_its_hash_and_a_shortened_one_by_its_size(bundle):
    graph = bundle.graph()
    content = graph.read_bytes()
    graph.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"graph\.fp32\.onnx: SHA-256 is .*the manifest says .*derain export"):
        bundle.graph()
    graph.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=rf"{len(content) - 1} bytes, the manifest says {len(content)}"):
        bundle.graph()
    graph.unlink()
    with pytest.raises(FileNotFoundError, match=r"graph\.fp32\.onnx: missing"):
        bundle.graph()


def test_a_file_the_manifest_does_not_name_is_refused(bundle):
    (bundle.path / "extra.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"extra\.onnx: not in the manifest, which names graph\.fp32\.onnx, weights"):
        bundle.file("extra.onnx")


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8, Precision.FP8])
def test_a_precision_the_bundle_lacks_names_those_it_has_and_the_verb_that_makes_it(precision, bundle):
    told = rf"no {precision} graph, the bundle has fp32: .*derain calibrate .*--precision {precision}"
    with pytest.raises(ValueError, match=told):
        bundle.graph(precision)


def test_writing_over_a_bundle_replaces_it_whole(bundle, make_description):
    files = {"weights.safetensors": b"new", "graph.fp32.onnx": b"graph"}
    Bundle.write(bundle.path, make_description(derain_version="9"), files)
    assert Bundle.load(bundle.path).manifest.derain_version == "9"
    assert [path.name for path in bundle.path.parent.iterdir()] == ["bundle"]


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path, make_description):
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="exists and is no bundle"):
        Bundle.write(tmp_path, make_description(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_a_folder_whose_manifest_is_another_programs_is_never_replaced(tmp_path, make_description):
    (tmp_path / "manifest.json").write_text('{"manifest_version": 3, "files": []}')
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match=r"its manifest\.json is no bundle's: choose another folder"):
        Bundle.write(tmp_path, make_description(), {})
    assert (tmp_path / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("damage", [lambda text: text, lambda text: text[:-20]])
def test_writing_over_a_bundle_leaves_the_users_own_files_alone(damage, bundle, make_description):
    (bundle.path / "notes").mkdir()
    (bundle.path / "notes" / "a.txt").write_text("mine")
    manifest = bundle.path / "manifest.json"
    manifest.write_text(damage(manifest.read_text()))
    Bundle.write(bundle.path, make_description(), {"weights.safetensors": b"new", "graph.fp32.onnx": b"graph"})
    assert (bundle.path / "notes" / "a.txt").read_text() == "mine"
    assert Bundle.load(bundle.path).graph().read_bytes() == b"graph"


def test_one_that_writes_a_bundle_waits_for_one_that_adds_to_it(bundle, make_description):
    """An export while a calibration copies its files would be lost: both would report success."""
    files = {"weights.safetensors": b"new", "graph.fp32.onnx": b"graph"}
    with bundles._one_at_a_time(bundle.path):
        thread = threading.Thread(target=Bundle.write, args=(bundle.path, make_description(), files))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        assert bundle.graph().read_bytes() != b"graph"
    thread.join(10)
    assert Bundle.load(bundle.path).graph().read_bytes() == b"graph"


def test_a_write_that_fails_leaves_the_old_bundle_and_nothing_else(bundle, make_description):
    before = (bundle.path / "manifest.json").read_bytes()
    with pytest.raises(ValueError, match=r"no entry for graph\.fp32\.onnx"):
        Bundle.write(bundle.path, make_description(), {"weights.safetensors": b"new"})
    assert (bundle.path / "manifest.json").read_bytes() == before
    assert [path.name for path in bundle.path.parent.iterdir()] == ["bundle"]


def test_adding_keeps_what_was_there_and_replaces_the_graph_of_the_same_precision(bundle, tmp_path):
    built = tmp_path / "built.plan"
    built.write_bytes(b"plan")
    engine = EngineEntry(file="e.plan", precision="fp32", api="tensorrt", api_version="11", arch="sm87")
    quality = Quality(frames="desk", precision="fp32", psnr_rgb=30.0)
    graph = GraphEntry(precision="int8", file="a.onnx")
    first = bundle.add({"e.plan": built, "a.onnx": b"a"}, graphs=[graph], engines=[engine], quality=[quality])
    second = first.add({"b.onnx": b"b"}, graphs=[GraphEntry(precision="int8", file="b.onnx")])
    loaded = Bundle.load(bundle.path)
    assert loaded.manifest == second.manifest
    assert loaded.graph(Precision.INT8).read_bytes() == b"b"
    assert loaded.file("e.plan").read_bytes() == b"plan"
    assert loaded.manifest.quality == (quality,)
    assert sorted(path.name for path in bundle.path.iterdir()) == sorted([*loaded.manifest.files, "manifest.json"])


def test_adding_leaves_the_users_own_files_in_the_folder_alone(bundle):
    (bundle.path / "layers.json").write_text("{}")
    (bundle.path / "notes").mkdir()
    (bundle.path / "notes" / "a.txt").write_text("mine")
    made = bundle.add({"a.onnx": b"a"}, graphs=[GraphEntry(precision="int8", file="a.onnx")])
    assert (bundle.path / "layers.json").read_text() == "{}"
    assert (bundle.path / "notes" / "a.txt").read_text() == "mine"
    assert "layers.json" not in made.manifest.files
    made.add({"layers.json": b"new"}, graphs=[GraphEntry(precision="int8", file="layers.json")])
    assert (bundle.path / "layers.json").read_bytes() == b"new", "a file of the bundle's takes the name"


def test_two_that_add_to_one_bundle_both_find_their_work_in_it(bundle):
    other = Bundle.load(bundle.path)
    bundle.add({"a.onnx": b"a"}, graphs=[GraphEntry(precision="int8", file="a.onnx")])
    other.add({"b.onnx": b"b"}, graphs=[GraphEntry(precision="fp8", file="b.onnx")])
    loaded = Bundle.load(bundle.path)
    assert loaded.graph(Precision.INT8).read_bytes() + loaded.graph(Precision.FP8).read_bytes() == b"ab"


def test_what_was_made_from_a_graph_that_has_changed_since_is_not_added(described):
    stale = Bundle.load(described.path)
    described.add({"graph.fp8.onnx": b"x"}, graphs=[GraphEntry(precision="fp8", file="graph.fp8.onnx")])
    engine = EngineEntry(file="n.plan", precision="fp8", api="a", api_version="1", arch="sm87")
    with pytest.raises(ValueError, match=r"graph\.fp8\.onnx: another graph than this began with: run it again$"):
        stale.add({"n.plan": b"n"}, engines=[engine])
    stale.add({"n.onnx": b"n"}, graphs=[GraphEntry(precision="int8", file="n.onnx")])
    described.add({"graph.fp32.onnx": b"y"})
    with pytest.raises(ValueError, match=r"graph\.fp32\.onnx: another graph"):
        stale.add({"m.onnx": b"m"}, graphs=[GraphEntry(precision="int8", file="m.onnx")])


def test_a_bundle_behind_a_link_is_written_where_it_lies(bundle):
    link = bundle.path.with_name("current")
    link.symlink_to(bundle.path.name)
    Bundle.load(link).add({"a.onnx": b"a"}, graphs=[GraphEntry(precision="int8", file="a.onnx")])
    assert link.is_symlink() and (bundle.path / "a.onnx").read_bytes() == b"a"
    assert {path.name for path in bundle.path.parent.iterdir()} == {"bundle", "current"}


@pytest.mark.parametrize("below", [".", "notes"])
def test_a_bundle_is_not_replaced_under_the_feet_of_who_stands_in_it(below, bundle, monkeypatch):
    """The shell would be left in a folder that is gone."""
    (bundle.path / "notes").mkdir()
    monkeypatch.chdir(bundle.path / below)
    path = Path("." if below == "." else "..")
    with pytest.raises(OSError, match=rf"^{bundle.path} would be replaced while .*: run it from outside"):
        Bundle.load(path).add({"b.onnx": b"b"}, graphs=[GraphEntry(precision="fp8", file="b.onnx")])
    assert Path.cwd() == bundle.path / below and Bundle.load(path).manifest == bundle.manifest


def test_links_in_a_bundles_folder_stay_links_and_a_dangling_one_harms_nothing(bundle, tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "0.png").write_bytes(b"frame")
    (bundle.path / "notes").mkdir()
    links = {name: bundle.path / name for name in ("frames", "file", "gone", "notes/gone")}
    for path, target in zip(links.values(), ("frames", "frames/0.png", "nowhere", "nowhere"), strict=True):
        path.symlink_to(tmp_path / target)
    bundle.add({"a.onnx": b"a"}, graphs=[GraphEntry(precision="int8", file="a.onnx")])
    assert all(path.is_symlink() for path in links.values())
    assert (bundle.path / "frames" / "0.png").read_bytes() == b"frame"


def test_a_place_where_no_bundle_can_be_is_told_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").touch()
    with pytest.raises(
        NotADirectoryError, match=r"^\S*/file is a file, so \S*/file/b cannot be made: name another place$"
    ):
        Bundle.check_place(tmp_path / "file" / "b")
    with pytest.raises(FileExistsError, match=r"^\S*/folder: exists and is no bundle .*: choose another folder$"):
        Bundle.check_place(tmp_path / "folder")
    Bundle.check_place(tmp_path / "new" / "b")
    with monkeypatch.context() as mounted:
        mounted.setattr(os.path, "ismount", lambda path: path == tmp_path / "b")
        with pytest.raises(FileExistsError, match=r"/b is a mount point, .*: name a folder in it$"):
            Bundle.check_place(tmp_path / "b")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match=r"^\S* cannot be written to: name another place for b$"):
        Bundle.check_place(tmp_path / "b")


@pytest.fixture
def described(bundle):
    """FP32, INT8 and FP8 with an engine and a quality each."""
    precisions = (Precision.FP32, Precision.INT8, Precision.FP8)
    files = {f"{p}.plan": b"plan" for p in precisions} | {f"graph.{p}.onnx": p.encode() for p in precisions[1:]}
    return bundle.add(
        files,
        graphs=[GraphEntry(precision=p, file=f"graph.{p}.onnx") for p in precisions[1:]],
        engines=[EngineEntry(file=f"{p}.plan", precision=p, api="a", api_version="1", arch="sm87") for p in precisions],
        quality=[Quality(frames="desk", precision=p, psnr_rgb=30.0) for p in precisions],
    )


def test_a_changed_graph_takes_its_engines_files_and_quality_with_it_and_no_others(described):
    quality = Quality(frames="road", precision="fp8", psnr_rgb=29.0)
    graph = GraphEntry(precision="fp8", file="graph.fp8.onnx")
    described.add({graph.file: b"another"}, graphs=[graph], quality=[quality])
    manifest = Bundle.load(described.path).manifest
    assert {entry.precision for entry in manifest.graphs} == {"fp32", "int8", "fp8"}
    assert {entry.precision for entry in manifest.engines} == {"fp32", "int8"}
    assert [entry for entry in manifest.quality if entry.precision == "fp8"] == [quality]
    assert len(manifest.quality) == 3
    assert not (described.path / "fp8.plan").exists() and (described.path / "int8.plan").exists()


def test_a_graph_written_again_with_the_same_bytes_keeps_what_was_made_from_it(described):
    graph = GraphEntry(precision="fp8", file="graph.fp8.onnx")
    made = described.add({graph.file: b"fp8"}, graphs=[graph])
    assert made.manifest == described.manifest


@pytest.mark.parametrize("graphs", [(), (GraphEntry(precision="fp32", file="graph.fp32.onnx"),)])
def test_with_fp32s_graph_everything_derived_from_it_goes(described, graphs):
    engine = EngineEntry(file="new.plan", precision="fp32", api="a", api_version="1", arch="sm87")
    described.add({"graph.fp32.onnx": b"another", "new.plan": b"new"}, graphs=graphs, engines=[engine])
    manifest = Bundle.load(described.path).manifest
    assert [entry.precision for entry in manifest.graphs] == ["fp32"]
    assert manifest.engines == (engine,) and manifest.quality == ()
    assert set(manifest.files) == {"weights.safetensors", "graph.fp32.onnx", "new.plan"}
