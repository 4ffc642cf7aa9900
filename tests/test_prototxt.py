"""Text and binary forms of nets and solvers: what is read, how it is printed, what is refused."""

from __future__ import annotations

import os
import random
import re
import time
from pathlib import Path

import pytest

from port import prototxt, schema
from port.errors import PrototxtError
from port.prototxt_text import shortest_float

GOLDEN = Path(__file__).parent / "golden"
LOGS = [
    log
    for log in sorted((GOLDEN / "train_small").glob("caffe_train_*.log"))
    if "Initializing solver from parameters" in log.read_text("utf-8")  # most are cut to the steps
]
NET = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }\n'


def printed_messages(log: Path) -> list[tuple[str, str]]:
    """("solver" or "net", text) of each message that Caffe printed into a log."""
    start = r"\] Initializing (solver|net) from parameters: \n(.*?)(?=^I\d{4} )"
    found = re.findall(start, log.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert found, log
    return [(kind, text.rstrip("\n") + "\n") for kind, text in found]


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.stem)
def test_messages_are_printed_as_in_caffes_logs(log):
    classes = {"solver": schema.SolverParameter, "net": schema.NetParameter}
    for kind, theirs in printed_messages(log):
        ours = prototxt.format_text(prototxt.parse(theirs, classes[kind], log.name))
        assert ours.rstrip("\n") + "\n" == theirs


def test_text_beyond_4_mib_is_refused():
    text = "name: 'x'\n" + "#" * prototxt.LARGEST_TEXT
    with pytest.raises(PrototxtError, match=r"4194314 bytes of text, more than the 4194304 read"):
        prototxt.read_net(text)


def test_logs_are_there():
    assert len(LOGS) >= 3


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1.0, "1"),
        (0.1, "0.1"),
        (0.0078125, "0.0078125"),
        (1e-8, "1e-08"),
        (1e10, "1e+10"),
        (1 / 3, "0.33333334"),
        (16777217.0, "16777216"),
        (3.4028234663852886e38, "3.4028235e+38"),
        (float("inf"), "inf"),
        (float("-inf"), "-inf"),
        (float("nan"), "nan"),
    ],
)
def test_floats_print_short(number, text):
    held = schema.FillerParameter(value=number).value
    assert shortest_float(held) == text


def test_printed_floats_read_back_exactly():
    numbers = random.Random(0)
    values = [numbers.uniform(-1, 1) * 10 ** numbers.randint(-37, 37) for _ in range(2000)]
    blob = schema.BlobProto(data=values, double_data=values)
    again = prototxt.parse(prototxt.format_text(blob), schema.BlobProto)
    assert again == blob


def test_strings_print_as_c_escapes_and_read_back():
    text = "tab\t \"quoted\" 'single' back\\slash é\n"
    message = schema.LayerParameter(name=text)
    printed = prototxt.format_text(message)
    assert printed == ('name: "tab\\t \\"quoted\\" \\\'single\\\' back\\\\slash \\303\\251\\n"\n')
    assert prototxt.parse(printed, schema.LayerParameter) == message
    datum = schema.Datum(data=bytes(range(256)))
    assert prototxt.parse(prototxt.format_text(datum), schema.Datum) == datum


def test_every_spelling_of_the_text_format():
    text = """
    # comment in another encoding
    name: 'a' "b";  force_backward: t,
    layer: < name: "x" bottom: ["p", "q"] phase: 1 loss_weight: [.5, 1e-1f, 2] >
    layer: [{ name: "y" pooling_param { pad: 0x10 stride: 010 global_pooling: 1 } }, {}]
    state {}
    """
    net = prototxt.parse(text, schema.NetParameter)
    assert net.name == "ab"
    assert net.force_backward is True
    assert list(net.layer[0].bottom) == ["p", "q"]
    assert schema.enum_name(net.layer[0], "phase") == "TEST"
    assert list(net.layer[0].loss_weight) == pytest.approx([0.5, 0.1, 2])
    pooling = net.layer[1].pooling_param
    assert (pooling.pad, pooling.stride, pooling.global_pooling) == (16, 8, True)
    assert len(net.layer) == 3
    assert net.HasField("state")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'layer {\n  name: "x"\n    typo: 1 }',
            "text:3:5: LayerParameter has no field 'typo' (did you mean 'type'?)",
        ),
        (
            "layer { convolution_parm { } }",
            "text:1:9: LayerParameter has no field 'convolution_parm' "
            "(did you mean 'convolution_param' or ",
        ),
        (
            "layer { phase: TRIAN }",
            "text:1:16: LayerParameter.phase cannot be 'TRIAN' (did you mean 'TRAIN'?): "
            "it is one of TRAIN, TEST",
        ),
        ("layer { phase: 7 }", "text:1:16: LayerParameter.phase cannot be '7': it is one of"),
        ("layer { name: 3 }", "text:1:15: LayerParameter.name takes a string in quotes, found '3'"),
        ("layer { name: x }", "text:1:15: LayerParameter.name takes a string in quotes, found 'x'"),
        ('layer { name: "x\n" }', "text:1:15: a string that is not closed on its line"),
        ("layer { name 'x' }", "text:1:14: expected ':' after 'name', found ''x''"),
        ("layer { input_param: 3 }", "text:1:22: expected '{' after 'input_param', found '3'"),
        ("layer {\n top: 'x'\n", "text:1:7: this '{' is never closed"),
        ("layer {\n", "text:1:7: this '{' is never closed"),
        ("layer { ] }", "text:1:9: expected a field of LayerParameter, found ']'"),
        (NET + "}", "text:2:1: expected a field of NetParameter, found '}'"),
        ("layer <\n}", "text:2:1: expected a field of LayerParameter, found '}'"),
        ("name: 'x'\nname: 'y'", "text:2:1: NetParameter.name is given twice"),
        ("state {}\nstate {}", "text:2:1: NetParameter.state is given twice"),
        ("name: ['x']\n", "text:1:8: NetParameter.name takes one value, not a list"),
        ("input_dim: [1 2]\n", "text:1:15: expected ',' or ']', found '2'"),
        ("input_dim: 1.5\n", "text:1:12: NetParameter.input_dim takes an int32, found '1.5'"),
        (
            "input_dim: 2147483648\n",
            "text:1:12: NetParameter.input_dim is int32: -2147483648 to 2147483647, "
            "found 2147483648",
        ),
        (
            "layer { pooling_param { pad: -1 } }",
            "text:1:30: PoolingParameter.pad is uint32: 0 to 4294967295, found -1",
        ),
        ("input_dim: 1_0\n", "text:1:12: NetParameter.input_dim takes an int32, found '1_0'"),
        ("input_dim: 08\n", "text:1:12: NetParameter.input_dim takes an int32, found '08'"),
        ("force_backward: 2\n", "text:1:17: NetParameter.force_backward takes true or false"),
        ("layer { loss_weight: 1e39 }", "LayerParameter.loss_weight: 1e39 is too large for float"),
        ("layer { loss_weight: -1e400 }", "loss_weight: 1e400 is too large for float"),
        ("layer { loss_weight: 1.2.3 }", "LayerParameter.loss_weight takes a float, found '1.2.3'"),
        ("layer { name: 'x' } $", "text:1:21: unexpected character '$'"),
        (
            r"layer { image_data_param { source: 'data\list.txt' } }",
            r"text:1:36: ImageDataParameter.source: unknown escape \l (in a path write / or \\)",
        ),
        ("layer { name: '\\377' }", "text:1:15: LayerParameter.name: the string is not UTF-8"),
        ("name: 'x' base_lr: 1\n", "text:1:11: NetParameter has no field 'base_lr': it belongs in"),
        ("name: 'x'\n", "text: a net without layers"),
    ],
)
def test_text_errors_say_where_and_what(text, message):
    with pytest.raises(PrototxtError, match=re.escape(message)):
        prototxt.read_net(text)


def test_the_file_is_named_in_errors(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(NET + "layer { tpye: 'x' }")
    expected = f"{path}:2:9: LayerParameter has no field 'tpye' (did you mean 'type'?)"
    with pytest.raises(PrototxtError, match=re.escape(expected)):
        prototxt.read_net(path)


@pytest.mark.parametrize(
    ("content", "read", "message"),
    [
        (b"base_lr: 0.1\n", prototxt.read_net, ":1:1: this is a solver (it has 'base_lr'), a net"),
        (NET.encode(), prototxt.read_solver, ":1:1: this is a net (it has 'layer'), a solver"),
        (b"", prototxt.read_net, ": nothing in it, a net is expected"),
        (b" \n", prototxt.read_solver, ": nothing in it, a solver is expected"),
        (b"\x0a\x01x\xa2\x06\x00", prototxt.read_solver, ": these 6 bytes are no SolverParam"),
        (b"\x0a\x02x", prototxt.read_net, ": these 3 bytes are no NetParameter: damaged, cut"),
        (b"\x0a\x01\xff\xa2\x06\x00", prototxt.read_net, ": these 6 bytes are no NetParameter"),
        (b"\x89HDF\r\n\x1a\n", prototxt.read_net, ": this is an HDF5 file, a net is expected"),
        ("name".encode("utf-16"), prototxt.read_net, ": this is UTF-16 text: save it as UTF-8"),
        (b"name: '\xc4\xe3'", prototxt.read_net, ":1:7: NetParameter.name: the string is not UTF"),
    ],
)
def test_wrong_files(content, read, message, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(PrototxtError, match=re.escape(f"{path}{message}")):
        read(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(PrototxtError, match=r"nosuch\.prototxt: no such file"):
        prototxt.read_net("nosuch.prototxt")
    with pytest.raises(PrototxtError, match="cannot be read: Is a directory"):
        prototxt.read_net(tmp_path)
    with pytest.raises(PrototxtError, match=re.escape(r"C:\nosuch.prototxt: no such file")):
        prototxt.read_net(r"C:\nosuch.prototxt")
    with pytest.raises(PrototxtError, match="cannot be read: embedded null"):
        prototxt.read_net("a\0b")


def test_a_comment_may_be_in_any_encoding_and_a_bom_is_skipped(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_bytes(b"\xef\xbb\xbf# \xc4\xe3\xba\xc3\r\n" + NET.encode())
    assert prototxt.read_net(path).layer[0].name == "x"


@pytest.mark.parametrize(
    "text",
    [
        "layer { " * 100_000,
        "[" * 100_000 + "\n",
        "layer { name: " + "'a'\"b\"" * 100_000,
        "layer { loss_weight: " + "9" * 1_000_000 + " }",
        "layer { phase: " + "9" * 10_000 + " }",
        "input_dim: " + "9" * 10_000 + "\n",
        "input_dim: " + "9" * 300 + "\n",
        "layer { " + "a" * 1_000_000 + ": 1 }",
        'layer { name: "' + "\\" * 1_000_001,
        "# " * 500_000 + "\n$",
        "a" * 100_000_000,
        "layer { name: '\ud800' }",
        "layer { name: '\x00' ",
    ],
    ids=lambda text: f"{text[:15]}x{len(text)}",
)
def test_hostile_text_is_refused_quickly_in_few_words(text):
    start = time.process_time()
    with pytest.raises(PrototxtError) as caught:
        prototxt.read_net(text.encode() if text.startswith("aa") else text)
    assert len(str(caught.value)) < 300
    assert time.process_time() - start < 5


def test_damaged_bytes_end_in_a_net_or_in_our_error():
    numbers = random.Random(1)
    sound = (GOLDEN / "upgrade" / "v1.caffemodel").read_bytes()
    text = (GOLDEN / "upgrade" / "v1_train.prototxt").read_bytes()
    messages = []
    for case in range(400):
        data = bytearray((sound, text)[case % 2])
        for _ in range(numbers.randint(1, 8)):
            data[numbers.randrange(len(data))] = numbers.randrange(256)
        cut = numbers.choice((len(data), numbers.randrange(len(data))))
        try:
            prototxt.format_text(prototxt.read_net(bytes(data[:cut])))
        except PrototxtError as error:
            messages.append(str(error))
    assert max(map(len, messages)) < 1000
    assert len(messages) > 200


def test_sources_of_every_kind_give_the_same_net(tmp_path):
    net = prototxt.read_net(NET)
    text_file, binary_file = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(text_file, net)
    prototxt.write_binary(binary_file, net)
    for source in (text_file, str(text_file), binary_file, NET.encode(), net, NET.rstrip()):
        assert prototxt.read_net(source) == net
    assert prototxt.read_net(net) is not net
    assert text_file.read_text() == prototxt.format_text(net)


def test_writing_leaves_the_old_file_when_it_fails(tmp_path):
    net = prototxt.read_net(NET)
    with pytest.raises(PrototxtError, match="cannot be written: No such file or directory"):
        prototxt.write_text(tmp_path / "missing" / "net.prototxt", net)
    folder = tmp_path / "taken"
    folder.mkdir()
    with pytest.raises(PrototxtError, match="taken: cannot be written: Is a directory"):
        prototxt.write_binary(folder, net)
    assert os.listdir(tmp_path) == ["taken"]


def test_paths_are_tried_as_given_then_beside_then_by_bare_name(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "code").mkdir(parents=True)
    (there / "code").mkdir(parents=True)
    monkeypatch.chdir(here)
    solver = there / "solver.prototxt"
    named = Path("code/net.prototxt")
    assert prototxt.resolve(named, solver) == named  # none exists
    (there / "net.prototxt").touch()
    assert prototxt.resolve(named, solver) == there / "net.prototxt"
    (there / "code" / "net.prototxt").touch()
    assert prototxt.resolve(named, there) == there / "code" / "net.prototxt"
    (here / "code" / "net.prototxt").touch()
    assert prototxt.resolve(named, solver) == named
    assert prototxt.resolve("x" * 5000, solver) == Path("x" * 5000)
