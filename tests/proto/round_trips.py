"""Messages to bytes and text and back, with whatever protobuf is installed: a program for test_proto.py to run."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import google.protobuf  # noqa: E402

from caffecli.errors import SpecError  # noqa: E402
from caffecli.proto.caffe_pb2 import Datum, NetParameter  # noqa: E402
from caffecli.spec import load, text  # noqa: E402

#: a datum as the reference's protobuf writes it: channels 1, height 2, width 3, six bytes, label 7
DATUM = bytes.fromhex("0801100218032206000102ff7f802807")


def main() -> None:
    folder = ROOT / "tests" / "golden" / "upgrade"
    for old in ("v0_small", "v1_lenet", "v1_include_share", "bn_with_params"):
        net = load.load_net(folder / f"{old}.prototxt")
        check(text.format(net) == (folder / f"{old}.upgraded.prototxt").read_text(), old)
        check(NetParameter.FromString(net.SerializeToString()) == net, f"{old}, binary")
        check(text.parse(text.format(net), NetParameter()) == net, f"{old}, text")

    net = NetParameter(name="n")
    net.layer.add(name="l").blobs.add(data=[0.1, -2.5], shape={"dim": [2]}, double_data=[1e-300])
    check(NetParameter.FromString(net.SerializeToString()) == net, "blobs")

    datum = Datum.FromString(DATUM)
    check((datum.channels, datum.height, datum.width, datum.label) == (1, 2, 3, 7), "datum")
    check(datum.data == b"\x00\x01\x02\xff\x7f\x80", "datum's bytes")
    check(datum.SerializeToString() == DATUM, "datum, written")

    for source, words in [
        ("base: 1", "s:1:1: unknown field 'base' in NetParameter"),
        ("layer { include { phase: TRAINN } }", "s:1:26: unknown value 'TRAINN' for Phase; did you mean 'TRAIN'?"),
        ("layer { include { phase: 9 } }", "s:1:26: unknown value '9' for Phase; expected one of TRAIN (0), TEST (1)"),
        ("name: 'a' name: 'b'", "s:1:17: field 'name' is given a second time; it holds one value"),
        ("name: a", 's:1:7: expected a text in quotes, got a; write "a"'),
        ("name 'a'", "s:1:6: expected ':', got 'a'"),
        ("layer { loss_weight: x }", "s:1:22: expected a number, got x"),
        ("state { level: 1.5 }", "s:1:16: expected a whole number, got 1.5"),
        ("state { level: 5000000000 }", "s:1:16: 5000000000 is out of range for this field"),
        ("layer { name: 'a'", "s:1:7: the '{' here is not closed"),
    ]:
        try:
            text.parse(source, NetParameter(), "s")
        except SpecError as error:
            check(str(error) == words, f"{source}: {error}")
        else:
            check(False, source)
    print(f"round trips hold with protobuf {google.protobuf.__version__}")


def check(holds: bool, what: str) -> None:
    if not holds:
        sys.exit(f"protobuf {google.protobuf.__version__}: {what}")


if __name__ == "__main__":
    main()
